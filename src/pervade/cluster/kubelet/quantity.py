"""Resource quantities (`250m`, `64Mi`, `1.5`) as numbers. Pure. Source: Kubernetes API conventions, Quantity."""

from __future__ import annotations

from decimal import Decimal

_SUFFIX = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(1000),
    "M": Decimal("1e6"), "G": Decimal("1e9"), "T": Decimal("1e12"), "P": Decimal("1e15"), "E": Decimal("1e18"),
    "Ki": Decimal(1 << 10), "Mi": Decimal(1 << 20), "Gi": Decimal(1 << 30), "Ti": Decimal(1 << 40), "Pi": Decimal(1 << 50),
    "Ei": Decimal(1 << 60),
}  # fmt: skip


def parse(text: object) -> Decimal:
    """The number; ValueError when it is none."""
    value = str(text)
    number = value.rstrip("numkMGTPEi")
    suffix = value[len(number) :]
    if suffix not in _SUFFIX:
        # An exponent such as 1e3 ends in a digit; a lone E suffix is handled above.
        raise ValueError(f"not a quantity: {value!r}")
    return Decimal(number) * _SUFFIX[suffix]


def milli_cpu(text: object) -> int:
    return int((parse(text) * 1000).to_integral_value(rounding="ROUND_CEILING"))


def in_bytes(text: object) -> int:
    return int(parse(text).to_integral_value(rounding="ROUND_CEILING"))
