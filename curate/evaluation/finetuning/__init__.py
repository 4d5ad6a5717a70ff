"""Networks trained on the labels themselves: fine-tuned from public or pretrained weights, or from nothing."""
