"""The certificate card: whom a certificate is for, by which names, who signed it, and how long it holds."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from servicelab.certificates import Description, describe
from servicelab.errors import LabError
from servicelab.views.base import View
from servicelab.views.svg import Node, Scene, el, fit, group, text, width_of

if TYPE_CHECKING:
    from servicelab.lab import Lab

WIDTH = 760.0


class CertificateCard(View):
    """One certificate. Made by ``lab.view.certificate()``.

    Attributes:
        description: What the card shows, as a ``certificates.Description``.
    """

    def __init__(self, lab: Lab, source: bytes | str | Mapping[str, Any], name: str = "") -> None:
        where = "given as PEM"
        if isinstance(source, str) and "-----BEGIN" not in source:
            secret = source.removeprefix("secret/")
            source, where = lab.get("secrets", secret), f"in Secret {secret}"
        elif isinstance(source, Mapping):
            where = f"in Secret {source.get('metadata', {}).get('name', '')}"
        try:
            self.description = describe(source)
        except ValueError as error:
            raise LabError(f"The certificate {where} can't be shown: {error}") from error
        super().__init__(draw(self.description, where, name))


def draw(card: Description, where: str, asked: str = "", at: datetime.datetime | None = None) -> Scene:
    """The card. Pure: ``at`` is the moment that it is drawn for, now by default."""
    at = at or datetime.datetime.now(datetime.timezone.utc)
    state = card.state(at)
    shapes: list[Node] = [
        _seal(card, state),
        text(92, 36, fit(card.subject or "(no subject)", WIDTH - 110, 16), "title"),
        text(92, 57, f"certificate {where}", "soft"),
    ]
    y = 92.0
    shapes.append(text(24, y, "names", "soft"))
    x = 130.0
    names = [*card.names, *card.addresses]
    for name in names:
        wide = width_of(name, 12, mono=True) + 22
        if x + wide > WIDTH - 20:
            x, y = 130.0, y + 32
        covers = bool(asked) and card.covers(asked) and Description.covers(_only(card, name), asked)
        shapes.append(
            group(
                el("rect", width=wide, height=24, rx=5, class_="tag"),
                text(11, 16, name, "mono small" + (" good strong" if covers else "")),
                x=x,
                y=y - 16,
            )
        )
        x += wide + 8
    if not names:
        shapes.append(text(130, y, "none: most clients of today find no name to compare", "bad"))
    if asked:
        y += 32
        good = card.covers(asked)
        verdict = "✓ a client that asked for this name accepts it" if good else "✗ a client that asked for this name refuses it"
        shapes += [text(24, y, "asked for", "soft"), text(130, y, fit(asked, 300, 13, mono=True), "mono")]
        shapes.append(text(130 + min(width_of(asked, 13, mono=True), 300) + 14, y, verdict, "good" if good else "bad"))
    y += 32
    signer = "itself: self-signed, so only who has this very certificate trusts it" if card.self_signed else card.issuer
    shapes += [text(24, y, "signed by", "soft"), text(130, y, fit(signer, WIDTH - 150, 13), "")]
    y += 28
    shapes += [text(24, y, "key", "soft"), text(130, y, card.key + (", may sign others (a CA)" if card.is_authority else ""))]
    y += 28
    shapes += [
        text(24, y, "SHA-256", "soft"),
        text(130, y, card.fingerprint[:47], "mono small"),
        text(130, y + 17, card.fingerprint[48:], "mono small"),
    ]
    y += 52
    shapes += _validity(card, y, at, state)
    return Scene(WIDTH, y + 44, shapes, card_text(card, asked, at), card_text(card, asked, at) + f"\nSHA-256 {card.fingerprint}")


def _only(card: Description, name: str) -> Description:
    """The same certificate with one name: which of the names is it that covers what was asked for?"""
    import dataclasses

    is_address = name in card.addresses
    return dataclasses.replace(card, names=() if is_address else (name,), addresses=(name,) if is_address else ())


def _seal(card: Description, state: str) -> Node:
    good = state == "valid"
    mark = "✓" if good else "✗"
    return group(
        el("circle", r=24, class_="tag", stroke_width=2), el("circle", r=18, class_="tag", stroke_dasharray="2 3"),
        text(0, 7, mark, "mid strong " + ("good" if good else "bad"), font_size=20),
        x=50, y=42,
    )  # fmt: skip


def _validity(card: Description, y: float, at: datetime.datetime, state: str) -> list[Node]:
    """The time it holds as a bar, with today on it."""
    left, right = 130.0, WIDTH - 130.0
    span = (card.not_after - card.not_before).total_seconds() or 1.0
    share = (at - card.not_before).total_seconds() / span
    now = left + (right - left) * min(max(share, -0.06), 1.06)
    return [
        text(24, y, "valid", "soft"),
        el("rect", x=left, y=y - 11, width=right - left, height=12, rx=6, class_="room"),
        el("rect", x=left, y=y - 11, width=round((right - left) * min(max(share, 0.0), 1.0), 1), height=12, rx=6, class_="steps"),
        el("path", d=f"M{now:.1f} {y - 17:g}v24", class_="dot", stroke="var(--packet)", stroke_width=2),
        text(left, y + 22, f"{card.not_before:%Y-%m-%d %H:%M}", "mono small soft"),
        text(right, y + 22, f"{card.not_after:%Y-%m-%d %H:%M} UTC", "mono small soft end"),
        text(right + 20, y, "expired" if state == "expired" else state, "strong " + ("good" if state == "valid" else "bad")),
    ]


def card_text(card: Description, asked: str = "", at: datetime.datetime | None = None) -> str:
    """The text twin: what a client looks at, without what differs from one making of it to the next."""
    signer = "itself (self-signed)" if card.self_signed else card.issuer
    days = (card.not_after - card.not_before).total_seconds() / 86400
    lines = [
        f"certificate for {card.subject or '(no subject)'}",
        f"  names:     {', '.join([*card.names, *card.addresses]) or 'none'}",
        f"  signed by: {signer}",
        f"  valid:     for {days:.0f} days; {card.state(at)} now",
        f"  key:       {card.key}" + (", may sign others" if card.is_authority else ""),
    ]
    if asked:
        lines.append(f"  asked for {asked}: {'accepted' if card.covers(asked) else 'refused, the name is not in it'}")
    return "\n".join(lines)
