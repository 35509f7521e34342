//! Llama-type decoders and reward heads; Hugging Face folders in and out.
