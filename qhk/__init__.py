"""Reinforcement fine-tuning of vision-language models on image quality."""
