"""demur: train and measure language models on knowing when to disagree."""

__version__ = "0.1.0"
