"""How a release and the paper of its method are cited, in BibTeX."""

from __future__ import annotations

PAPER = """\
@article{wang2025safevid,
  title   = {{SafeVid}: Toward Safety Aligned Video Large Multimodal Models},
  author  = {Wang, Yixu and Song, Jiaxin and Gao, Yifeng and Wang, Xin and Yao, Yang and Teng, Yan and
             Ma, Xingjun and Wang, Yingchun and Jiang, Yu-Gang},
  journal = {arXiv preprint arXiv:2505.11926},
  year    = {2025}
}"""


def how_to_cite(release: str, profile: str, pairs: int) -> str:
    """The text of the card's section: the release by its id, and the method's paper."""
    of_release = f"""\
@misc{{safevid_pairs_{release},
  title = {{{{SafeVid}} preference pairs, release {release}}},
  note  = {{{pairs} pairs, profile {profile}, made by the method of arXiv:2505.11926}}
}}"""
    return "\n\n".join(
        [
            "Cite the release by its id. The id is a hash of the pairs, so it names exactly these rows.",
            _bibtex(of_release),
            "The paper describes the method. Its authors did not make this release, which is not their "
            "SafeVid-350K.",
            _bibtex(PAPER),
        ]
    )


def _bibtex(entry: str) -> str:
    return f"```bibtex\n{entry}\n```"
