"""What a guide is made of: which latents are weights and which their scales, and the q of each."""
