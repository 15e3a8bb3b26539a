"""Vision-language models: loading, prompts, adaptation of the image encoder, and cached features.

* `base.py`: the interface of a model, and the base class of the families
* `loading.py`: loading a model by its name, see `names.py`; `families/`: one file a family, and their table
* `pretrained.py`: configurations, tokenizers and weights, with a clear message for each error
* `colours.py`: the colour transform of an image processor
* `prompts.py`: the learned positive and negative prompts; `text_encoder.py` encodes them
* `peft/`: parameter-efficient modules for the image encoder, one file a kind
* `features.py`: image features, computed once and cached on disk; `feature_cache.py` reads them
"""
