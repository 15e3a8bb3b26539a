"""Vision-language models: loading them, prompting them, adapting them, and remembering what they said.

* `base.py`: what a detector may ask of a model
* `huggingface.py`: two-tower models of `transformers`
* `prompts.py`: the learned positive and negative prompts
* `peft/`: parameter-efficient modules for the vision tower, one file a kind
* `features.py`: image features, computed once and kept on disk
"""
