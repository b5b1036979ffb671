"""`headwater tenant`: what each tenant holds, and how one ends."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.counts import counted
from orchestration.cli.terminal import (
    Json,
    console,
    log,
    print_json,
    print_progress,
    print_table,
    quiet_terminal,
    read_command_settings,
)

if TYPE_CHECKING:
    from orchestration.tenants.holdings import TenantHoldings

app = typer.Typer(no_args_is_help=True, help="What each tenant holds, and how one ends.")

_Tenant = Annotated[
    str, typer.Argument(metavar="TENANT", help="Its name, as `headwater tenant list` has it.")
]


@app.command("list")
def tenant_list_command(json_: Json = False) -> None:
    """List the tenants, with what each holds; of removed ones, what physically remains.

    Example: `headwater tenant list`
    """
    from orchestration.tenants.holdings import list_tenants

    settings = read_command_settings()
    with quiet_terminal():
        found = list_tenants(settings)
    if json_:
        print_json([_holdings_json(each) for each in found])
        return
    rows: list[dict[str, Any]] = [
        {
            "tenant": each.tenant,
            "sources": len(each.sources),
            "documents": f"{each.rows.get('silver.documents', 0):,}",
            "quarantined": f"{each.rows.get('silver.quarantine', 0):,}",
            "searchable chunks": f"{each.searchable:,}",
            "bytes": f"{each.size_bytes:,}",
            "answers": f"{each.rows.get('gold.answers', 0):,}",
            "training sets": len(each.training_sets),
            "models": len(each.models),
        }
        for each in found
        if not each.is_gone
    ]
    print_table(rows)
    for each in found:
        if each.is_gone:
            console.print(
                f"{each.tenant} is gone but for chunks in earlier releases ({', '.join(each.releases)}), and "
                "goes with these: `HEADWATER_RELEASES_KEPT=1 headwater run` removes them at once",
                markup=False,
                soft_wrap=True,
            )


@app.command("show")
def tenant_show_command(tenant: _Tenant, json_: Json = False) -> None:
    """Show all that is held for a tenant: in tables, releases, training sets, models and question sets.

    Example: `headwater tenant show acme`
    """
    from orchestration.tenants.holdings import show_tenant

    settings = read_command_settings()
    with quiet_terminal():
        held = show_tenant(settings, tenant)
    if json_:
        print_json(_holdings_json(held))
    else:
        print_table(_holdings_rows(held), tenant)


@app.command("remove")
def tenant_remove_command(
    tenant: _Tenant,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")] = False,
    json_: Json = False,
) -> None:
    """Remove a tenant: its sources, documents with all revisions, answers and training sets, in one release.

    What physically remains for a while, such as files of earlier versions, is listed with when it goes. There
    is no way back but from a backup.

    Example: `headwater tenant remove acme`
    """
    from orchestration.tenants.holdings import show_tenant
    from orchestration.tenants.removal import remove_tenant

    settings = read_command_settings()
    if not yes:
        with quiet_terminal():
            held = show_tenant(settings, tenant)
        for row in _holdings_rows(held):
            log.print(f"{row['']}: {row['held']}", markup=False)
        typer.confirm(f"Remove all of this of {tenant}?", abort=True, err=True)
    with quiet_terminal():
        done = remove_tenant(settings, tenant, print_progress)
    if json_:
        print_json(asdict(done) | {"held": _holdings_json(done.held)})
        return
    held_rows = done.held.rows.get("bronze.raw_documents", 0)
    live = f"release {done.release} is live, and has nothing of it" if done.release else "nothing is released"
    console.print(f"removed {tenant}: {counted(held_rows, 'revision')} of documents; {live}", markup=False)
    console.print("what physically remains:")
    for each in done.remaining:
        console.print(f"  {each.what}: until {each.until}", markup=False, soft_wrap=True)


def _holdings_json(held: "TenantHoldings") -> dict[str, Any]:
    return asdict(held) | {"searchable": held.searchable, "is_gone": held.is_gone}


def _holdings_rows(held: "TenantHoldings") -> list[dict[str, Any]]:
    """Returns what is held, a line per kind of thing."""
    kinds: list[tuple[str, str]] = [
        ("sources", ", ".join(held.sources)),
        *((table, counted(rows, "row")) for table, rows in held.rows.items()),
        ("bytes as they came", f"{held.size_bytes:,}"),
        *(
            (f"release {name}" + (" (live)" if name == held.live else ""), counted(chunks, "chunk"))
            for name, chunks in held.releases.items()
        ),
        ("training sets", ", ".join(held.training_sets)),
        ("models", ", ".join(held.models)),
        ("question sets", ", ".join(held.question_sets)),
    ]
    return [{"": kind, "held": what or "none"} for kind, what in kinds]
