"""Licences of sources as SPDX expressions: checked by `packaging`, which has SPDX's list."""

import ast
import re
from collections.abc import Collection
from typing import Annotated

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import AfterValidator

LICENSE_NOT_ALLOWED = "licence_not_allowed"
LICENSE_UNKNOWN = "licence_unknown"
"""Why a document is not fit for training, where it lies in the licence of its source."""

_OPERATORS = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
_TOKEN = re.compile(r"[()]|[^\s()]+(?: WITH [^\s()]+)?")


def spdx_license(expression: str) -> str:
    """Returns an SPDX licence expression in its canonical form, such as `MIT OR Apache-2.0`.

    Raises:
        ValueError: It is none; the message says which identifier is not in SPDX's list.
    """
    try:
        return str(canonicalize_license_expression(expression))
    except InvalidLicenseExpression as error:
        raise ValueError(
            f"{str(error).rstrip('.')}: give an SPDX expression such as MIT, 'MIT OR Apache-2.0' or, for a "
            "licence that is not in SPDX's list (https://spdx.org/licenses), LicenseRef-NAME"
        ) from None


SpdxLicense = Annotated[str, AfterValidator(spdx_license)]
"""An SPDX licence expression, in its canonical form."""


def license_unfit_reason(expression: str | None, allowed: Collection[str] | None) -> str | None:
    """Returns why documents under a licence may not go into a training set; None if they may.

    Args:
        expression: The licence as `spdx_license` returns it; None if it is not known.
        allowed: The licences that may. Of an `OR` one has to be among them, of an `AND` all, and a licence
            `WITH` an exception as it is written. None allows all, unknown ones included.
    """
    if allowed is None:
        return None
    if expression is None:
        return LICENSE_UNKNOWN
    if expression in allowed:
        return None
    # An expression has the form of Python's own, with `and` binding closer than `or`.
    tokens = (_OPERATORS.get(token, str(token in allowed)) for token in _TOKEN.findall(expression))
    return None if _holds(ast.parse(" ".join(tokens), mode="eval").body) else LICENSE_NOT_ALLOWED


def _holds(node: ast.expr) -> bool:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            return all(map(_holds, values))
        case ast.BoolOp(values=values):
            return any(map(_holds, values))
        case ast.Constant(value=bool(value)):
            return value
    raise ValueError(f"{ast.dump(node)} is no licence expression")
