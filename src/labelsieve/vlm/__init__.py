"""Vision-language models: loading them, prompting them, adapting them, and remembering what they said.

* `base.py`: what a detector may ask of a model
* `huggingface.py`: loading a model, and the table of families; `clip.py`, `siglip.py`, `blip.py` ...: one file a family
* `encoders.py`: what the families have in common
* `reading.py`: configurations, tokenizers and weights, with a clear line for what is wrong with them
* `colours.py`: what an image processor does to colours, found out by trying
* `prompts.py`: the learned positive and negative prompts
* `peft/`: parameter-efficient modules for the image encoder, one file a kind
* `features.py`: image features, computed once and kept on disk; `kept_features.py` reads them
"""
