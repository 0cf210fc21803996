"""`soulkeep prompts`: the user's global prompts."""

from dataclasses import asdict

import click

from soulkeep.cli.commands import Group
from soulkeep.cli.options import home_option, home_to_read, json_option, opened_home, yes_option
from soulkeep.cli.terminal import confirm, one_line, print_json, read_text, report, say
from soulkeep.models import GlobalPrompt
from soulkeep.service.offers import offer_prompts

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


@prompts.command()
@click.argument("name")
@click.argument("content")
@click.option("--priority", type=int, default=0, show_default=True, help="Higher is loaded first.")
@json_option
@home_option
def add(name: str, content: str, priority: int, *, as_json: bool) -> None:
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


@prompts.command()
@_id_argument
@yes_option
@json_option
@home_option
def remove(prompt_id: int, *, yes: bool, as_json: bool) -> None:
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
