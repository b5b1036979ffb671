"""Which extra of this project a missing package belongs to."""

import re
from importlib.metadata import requires

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9_.-]+).*extra == ['\"](?P<extra>\w+)['\"]")


def missing_package_advice(module: str) -> str | None:
    """Returns the command that installs the package of a module, if an extra has it.

    Args:
        module: The module that could not be imported, such as `faiss` of the package `faiss-cpu`.
    """
    wanted = module.partition(".")[0].replace("_", "-").lower()
    found = [match for each in requires("headwater") or () if (match := _REQUIREMENT.match(each))]
    # Those that only need some packages are smaller than `dev`, which has them for its tests.
    extras = sorted(
        (match["extra"] == "dev", match["extra"])
        for match in found
        if match["name"].lower().replace("_", "-") in (wanted, f"{wanted}-cpu")
    )
    return f"`make setup EXTRAS={extras[0][1]}` installs it" if extras else None
