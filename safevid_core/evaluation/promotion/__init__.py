"""Whether an aligned policy replaces the one in use: what it must show, and who signed for it."""

from safevid_core.evaluation.promotion.decision import candidate_of, decide, make_promotion_decision

__all__ = ["candidate_of", "decide", "make_promotion_decision"]
