"""A Hugging Face decoder seen from outside: where its neurons are, what is below its head, its checkpoint, its log-likelihoods.

Imports `disk` and `base`; it knows neither languages nor masks. Begin with `projections.py`.
"""
