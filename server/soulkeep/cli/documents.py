"""`soulkeep documents` and `prompts`: the texts that the user writes for agents."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

import click

from soulkeep.cli import Group, home_option, home_to_read, json_option, opened_home, yes_option
from soulkeep.cli.terminal import (
    confirm,
    one_line,
    print_document,
    print_json,
    print_table,
    read_text,
    report,
    say,
    size_text,
)
from soulkeep.documents import DOCUMENTS, DocumentName
from soulkeep.errors import InvalidInputError, SoulkeepError
from soulkeep.models import GlobalPrompt
from soulkeep.service.curator import Curated
from soulkeep.service.prompts import offer_prompts
from soulkeep.wording import counted, quoted


class _Day(click.ParamType[date]):
    """A date as the names of logs have it."""

    name = "date"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Return the day; a usage error says what one looks like."""
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{quoted(value)} is no date such as 2026-11-24.", param, ctx)


_name_argument = click.argument(
    "name", type=click.Choice(DOCUMENTS, case_sensitive=False), metavar="|".join(DOCUMENTS)
)


@click.group(cls=Group)
def documents() -> None:
    """Show and change SOUL.md, MEMORY.md and the logs, and bring back what they said before."""


@documents.command()
@_name_argument
@click.option("--version", help="A version that `history` lists, instead of the present text.")
@json_option
@home_option
def show(name: DocumentName, version: str | None, *, as_json: bool) -> None:
    """Print a document."""
    with home_to_read() as home:
        text = home.documents.read_version(name, version) if version else home.documents.read(name)
    if as_json:
        print_json({"name": name, "text": text})
    else:
        print_document(text)


@documents.command()
@click.argument("name", metavar=f"{'|'.join(DOCUMENTS)}|DATE")
@click.argument("text", required=False)
@json_option
@home_option
def edit(name: str, text: str | None, *, as_json: bool) -> None:
    """Open a document, or the log of a DATE such as 2026-11-24, in your editor.

    With TEXT, or what stdin says for a single -, that is put in its place. What others changed meanwhile
    is never overwritten; what you wrote is kept in a file then. `soulkeep undo` takes the edit back.
    """
    document = next((each for each in DOCUMENTS if each.lower() == name.lower()), None)
    page: DocumentName | date = document or _Day().convert(name, None, None)
    with home_to_read() as home:
        texts = home.documents
        read = texts.read_daily(page) if isinstance(page, date) else texts.read(page)
    if read is None:
        raise click.UsageError(f"There is no log of {name}; `soulkeep documents log` begins today's.")
    draft = _edited(name, read) if text is None else None
    try:
        new = _written(draft) if draft is not None else read_text(text or "")
        if new != read:
            with opened_home() as home:
                home.curator.replace_text(page, read, new)
    except SoulkeepError:
        if draft is not None:
            say(f"What you wrote is in {draft}", err=True)
        raise
    if draft is not None:
        shutil.rmtree(draft.parent)
    done = f"Changed {name}" if new != read else f"{name} says what it said"
    report(as_json, {"name": name, "changed": new != read}, done)


def _edited(name: str, text: str) -> Path:
    """Let the user edit a text in a file that only they can read; return where it is."""
    draft = Path(tempfile.mkdtemp(prefix="soulkeep-"), f"{name.removesuffix('.md')}.md")
    draft.write_bytes(text.encode())
    try:
        click.edit(filename=str(draft))
    except click.ClickException:
        shutil.rmtree(draft.parent)
        raise
    return draft


def _written(draft: Path) -> str:
    try:
        return draft.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError("text", "is not UTF-8; save it as UTF-8 in your editor") from error


@documents.command()
@_name_argument
@click.argument("section")
@click.argument("text")
@json_option
@home_option
def add(name: DocumentName, section: str, text: str, *, as_json: bool) -> None:
    """Add TEXT, or what stdin says for a single -, to a SECTION such as "Learned Preferences"."""
    entry = read_text(text)
    with opened_home() as home:
        changed = home.curator.add_to(name, section, entry)
    document = {"name": name, "section": section, "entry": entry, "changed": changed}
    done = "Added to {} in {}" if changed else "{} in {} says that already; nothing was written."
    report(as_json, document, done.format(section, name))


@documents.command()
@click.argument("section")
@click.argument("entry")
@click.argument("new_entry")
@json_option
@home_option
def replace(section: str, entry: str, new_entry: str, *, as_json: bool) -> None:
    """Put NEW_ENTRY in the place of an ENTRY in a SECTION of MEMORY.md."""
    with opened_home() as home:
        curated = home.curator.replace_entry(section, entry, new_entry)
    report(as_json, asdict(curated), *_curated_lines("Replaced in", curated))


@documents.command()
@click.argument("section")
@click.argument("entry")
@json_option
@home_option
def remove(section: str, entry: str, *, as_json: bool) -> None:
    """Take an ENTRY out of a SECTION of MEMORY.md; `soulkeep undo` brings it back."""
    with opened_home() as home:
        curated = home.curator.replace_entry(section, entry, None)
    report(as_json, asdict(curated), *_curated_lines("Removed from", curated))


@documents.command()
@click.argument("memory_id", type=int, metavar="ID")
@click.argument("section")
@json_option
@home_option
def promote(memory_id: int, section: str, *, as_json: bool) -> None:
    """Add a memory's text to a SECTION of MEMORY.md, with a link to the memory."""
    with opened_home() as home:
        curated = home.curator.promote(memory_id, section)
    report(as_json, asdict(curated), *_curated_lines("Added to", curated))


@documents.command()
@click.argument("text")
@json_option
@home_option
def log(text: str, *, as_json: bool) -> None:
    """Append TEXT, or what stdin says for a single -, to today's log."""
    entry = read_text(text)
    with opened_home() as home:
        day, time = home.curator.log_day(entry)
    where = f"Logged under {time} in daily/{day.isoformat()}.md"
    report(as_json, {"day": day.isoformat(), "time": time}, f"{where}.")


@documents.command()
@click.argument("date", type=_Day(), required=False, metavar="[DATE]")
@json_option
@home_option
def day(date: date | None, *, as_json: bool) -> None:
    """Print the log of a DATE such as 2026-11-24; without one, today's."""
    with home_to_read() as home:
        wanted = home.documents.today() if date is None else date
        text = home.documents.read_daily(wanted)
        days = home.documents.list_daily()
    if as_json:
        print_json({"day": wanted.isoformat(), "text": text})
    elif text is None:
        latest = f"; the latest is {days[-1]}" if days else ""
        say(f"There is no log of {wanted}{latest}.")
    else:
        print_document(text)


@documents.command()
@_name_argument
@json_option
@home_option
def history(name: DocumentName, *, as_json: bool) -> None:
    """List the versions kept of a document, newest first."""
    with home_to_read() as home:
        versions = home.documents.list_versions(name)
    if as_json:
        print_json({"versions": [asdict(version) for version in versions]})
    elif versions:
        print_table(("VERSION", "SIZE"), [(version.id, size_text(version.size)) for version in versions])
    else:
        say(f"There are no earlier versions of {name}; each edit by soulkeep keeps one.")


@documents.command()
@_name_argument
@click.argument("version")
@json_option
@home_option
def restore(name: DocumentName, version: str, *, as_json: bool) -> None:
    """Bring back a version that `history` lists; the present text is kept as one too."""
    with opened_home() as home:
        home.curator.restore(name, version)
    report(as_json, {"name": name, "version": version}, f"Restored {name} as it was until {version}")


def _curated_lines(done: str, curated: Curated) -> Sequence[str]:
    taken = f"MEMORY.md takes {counted(curated.tokens, 'token')} of {curated.budget:,}"
    already = f"{curated.section} says that already; nothing was written."
    done = f"{done} {curated.section}." if curated.changed else already
    if not curated.suggestions:
        return (f"{done} {taken}.",)
    return (
        f"{done} {taken}, which is over its budget; nothing is cut off.",
        "The longest entries, which `soulkeep remember` could keep instead:",
        *(
            f"| {s.section}, {counted(s.tokens, 'token')}: {one_line(s.entry)}"
            for s in curated.suggestions
        ),
    )


_id_argument = click.argument("prompt_id", type=int, metavar="ID")


@click.group(cls=Group)
def prompts() -> None:
    """Add, change, switch and remove global prompts (your standing instructions to agents)."""


@prompts.command("list")
@json_option
@home_option
def list_(*, as_json: bool) -> None:
    """List all prompts, highest priority first."""
    with home_to_read() as home:
        found = home.prompts.list_prompts(include_inactive=True)
    if as_json:
        names = {offer.prompt.id: offer.name for offer in offer_prompts(found)}
        print_json({"prompts": [asdict(p) | {"mcp_name": names.get(p.id)} for p in found]})
    elif found:
        for prompt in found:
            say(_line(prompt))
    else:
        say("There are no global prompts; add one with `soulkeep prompts add NAME CONTENT`.")


@prompts.command("add")
@click.argument("name")
@click.argument("content")
@click.option("--priority", type=int, default=0, show_default=True, help="Higher is loaded first.")
@json_option
@home_option
def add_prompt(name: str, content: str, priority: int, *, as_json: bool) -> None:
    """Add a prompt; a single - for CONTENT reads it from stdin."""
    text = read_text(content)
    with opened_home() as home:
        prompt = home.prompts.add_prompt(name, text, priority)
    report(as_json, asdict(prompt), f"Added {_line(prompt)}")


@prompts.command()
@_id_argument
@click.option("--name", help="Another name.")
@click.option("--content", help="Another text; a single - reads it from stdin.")
@click.option("--priority", type=int, help="Higher is loaded first.")
@json_option
@home_option
def change(
    prompt_id: int, name: str | None, content: str | None, priority: int | None, *, as_json: bool
) -> None:
    """Change what is given of a prompt and keep the rest."""
    if name is None and content is None and priority is None:
        raise click.UsageError("Give --name, --content or --priority.")
    text = None if content is None else read_text(content)
    with opened_home() as home:
        prompt = home.prompts.change_prompt(prompt_id, name=name, content=text, priority=priority)
    report(as_json, asdict(prompt), f"Changed {_line(prompt)}")


@prompts.command()
@_id_argument
@json_option
@home_option
def activate(prompt_id: int, *, as_json: bool) -> None:
    """Switch a prompt on; if an agent proposed it, that makes it your instruction."""
    with opened_home() as home:
        prompt = home.prompts.change_prompt(prompt_id, is_active=True)
    report(as_json, asdict(prompt), f"Activated {_line(prompt)}")


@prompts.command()
@_id_argument
@json_option
@home_option
def deactivate(prompt_id: int, *, as_json: bool) -> None:
    """Switch a prompt off and keep it."""
    with opened_home() as home:
        prompt = home.prompts.change_prompt(prompt_id, is_active=False)
    report(as_json, asdict(prompt), f"Deactivated {_line(prompt)}")


@prompts.command("remove")
@_id_argument
@yes_option
@json_option
@home_option
def remove_prompt(prompt_id: int, *, yes: bool, as_json: bool) -> None:
    """Remove a prompt and print its text, so that it can be added again."""
    if not yes:
        confirm(f"Remove prompt {prompt_id}? `soulkeep prompts deactivate` would keep it.")
    with opened_home() as home:
        prompt = home.prompts.remove_prompt(prompt_id)
    report(as_json, asdict(prompt), f"Removed {_line(prompt)}", prompt.content)


def _line(prompt: GlobalPrompt) -> str:
    state = "active" if prompt.is_active else "inactive"
    if not prompt.is_agreed:
        state = f"proposed by {prompt.prompt_by or 'an agent'}: not in force until you activate it"
    return f"prompt {prompt.id}: {one_line(prompt.name)} (priority {prompt.priority}, {state})"
