"""Talking to a model: the conversation and its commands know no terminal; the screen and the loop are the terminal."""
