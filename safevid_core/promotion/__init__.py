"""Promotion: the decision whether an aligned policy replaces the one in use, with criteria and sign-off."""
