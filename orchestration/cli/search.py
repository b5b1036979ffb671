"""`headwater ask` and `search`: the answer to a question, and the chunks that match a query."""

from typing import Annotated, Literal

import typer

from common.counts import counted
from orchestration.cli.terminal import (
    AsOf,
    Groups,
    Json,
    Tenant,
    console,
    print_json,
    print_progress,
    print_table,
    quiet_terminal,
    read_command_settings,
    shortened,
)

_SHOWN_CHARS = 160


def ask_command(
    question: Annotated[str, typer.Argument(help="The question, in plain words.")],
    tenant: Tenant = "default",
    group: Groups = None,
    as_of: AsOf = None,
    json_: Json = False,
) -> None:
    """Answer a question with citations, from the live release or from an earlier one.

    Example: `headwater ask "How do I pin a dependency?" --as-of 2026-03-01`
    """
    from orchestration.cli.render import render_answer
    from orchestration.operations.ask import ask_release, open_ask_service

    settings = read_command_settings()
    with quiet_terminal(), open_ask_service(settings) as service:
        given = ask_release(service, question, tenant, group or (), as_of)
        if given.refused and tenant not in service.index.tenants():
            print_progress(f"the tenant {tenant!r} has no documents: `headwater source list` shows tenants")
        answer = given.to_dict()
    if json_:
        print_json(answer)
    else:
        console.print(render_answer(question, answer))


def search_command(
    query: Annotated[str, typer.Argument(help='Words, "a phrase in quotes", -word to leave out.')],
    k: Annotated[int, typer.Option("--k", help="How many chunks to find.")] = 10,
    mode: Annotated[
        Literal["hybrid", "lexical", "vector", "reranked"] | None,
        typer.Option(help="How to rank: by default reranked if a reranker is configured, else hybrid."),
    ] = None,
    tenant: Tenant = "default",
    group: Groups = None,
    as_of: AsOf = None,
    fit_only: Annotated[
        bool,
        typer.Option(
            "--fit-only", help="Leave out documents that are not fit for training; see docs/gates.md."
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Show how vectors were compared, and why; as JSON: `plan` and `hits`."
        ),
    ] = False,
    json_: Json = False,
) -> None:
    """Find the chunks that match a query. A quoted phrase must be in a chunk, a word with a minus must not.

    Example: `headwater search "structured logging" --k 5 --mode lexical`
    """
    from dataclasses import asdict

    from orchestration.operations.ask import open_ask_service, search_release

    settings = read_command_settings()
    with quiet_terminal(), open_ask_service(settings) as service:
        found = search_release(service, query, k, mode, tenant, group or (), as_of, fit_only)
    hits, looked = found.hits, found.reranked
    plan = {
        "mode": found.mode,
        "asked": k,
        "found": len(hits),
        "vector": asdict(found.plan) if found.plan else None,
        "reranked": looked.summary() if looked else None,
    }
    names = ("rank", "score", "chunk_id", "doc_id", "uri", "heading", "char_start", "char_end", "text")
    rows = [{name: getattr(hit, name) for name in names} for hit in hits]
    if len(hits) < k:
        matches = "matches the query" if found.plan else "holds a word of the query"
        reason = f"no other that this user of {tenant} may read {matches}"
        print_progress(f"{len(hits)} of the {counted(k, 'chunk')} asked for: {reason}")
    if json_:
        print_json({"plan": plan, "hits": rows} if explain else rows)
        return
    shown = [
        {
            "rank": r["rank"],
            "score": f"{r['score']:.3f}",
            "uri": r["uri"],
            "heading": r["heading"],
            "text": shortened(" ".join(r["text"].split()), _SHOWN_CHARS),
            "chunk_id": r["chunk_id"],
        }
        for r in rows
    ]
    print_table(shown)
    if any(row["text"].endswith("…") for row in shown):
        print_progress(f"texts are cut after {_SHOWN_CHARS} characters: --json has them whole")
    if explain and looked:
        console.print(f"reranking: {looked.explanation()}", soft_wrap=True)
    if explain and found.plan:
        console.print(f"vectors: {found.plan.method}; {found.plan.why}", soft_wrap=True)
        console.print(", ".join(f"{name} = {value}" for name, value in found.plan.settings.items()))
    elif explain:
        console.print("vectors: not compared; every chunk that holds a word of the query was scored")
