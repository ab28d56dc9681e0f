"""A Hugging Face decoder seen from outside: where its neurons are, what is below its head, its checkpoint, its log-likelihoods.

May import `base`; it knows no languages and no masks. Begin with `projections.py`.
"""
