"""`soulkeep prompts`: the user's global prompts."""

import sys

import click

from soulkeep.answers.prompts import PromptsAnswer
from soulkeep.cli.options import home_option, json_option, opened_home
from soulkeep.cli.terminal import print_json, printable
from soulkeep.models import GlobalPrompt


@click.group()
def prompts() -> None:
    """Add, change, switch and remove global prompts (your standing instructions to agents)."""


@prompts.command("list")
@json_option
@home_option
def list_(*, as_json: bool) -> None:
    """List all prompts, highest priority first."""
    with opened_home() as home:
        found = home.prompts.list_prompts(include_inactive=True)
    if as_json:
        print_json(PromptsAnswer.of(found).model_dump())
        return
    for prompt in found:
        click.echo(printable(_line(prompt)))
    if not found:
        click.echo("There are no global prompts; add one with `soulkeep prompts add NAME CONTENT`.")


@prompts.command()
@click.argument("name")
@click.argument("content")
@click.option("--priority", type=int, default=0, show_default=True, help="Higher is loaded first.")
@home_option
def add(name: str, content: str, priority: int) -> None:
    """Add a prompt; CONTENT - reads it from stdin."""
    text = sys.stdin.read() if content == "-" else content
    with opened_home() as home:
        prompt = home.prompts.add_prompt(name, text, priority)
    click.echo(f"Added {printable(_line(prompt))}")


@prompts.command()
@click.argument("prompt_id", type=int)
@click.option("--name")
@click.option("--content", help="A single - reads it from stdin.")
@click.option("--priority", type=int, help="Higher is loaded first.")
@home_option
def change(prompt_id: int, name: str | None, content: str | None, priority: int | None) -> None:
    """Change what is given of a prompt and keep the rest."""
    if name is None and content is None and priority is None:
        raise click.UsageError("Give --name, --content or --priority.")
    text = sys.stdin.read() if content == "-" else content
    with opened_home() as home:
        prompt = home.prompts.change_prompt(prompt_id, name=name, content=text, priority=priority)
    click.echo(f"Changed {printable(_line(prompt))}")


@prompts.command()
@click.argument("prompt_id", type=int)
@home_option
def activate(prompt_id: int) -> None:
    """Switch a prompt on."""
    with opened_home() as home:
        prompt = home.prompts.change_prompt(prompt_id, is_active=True)
    click.echo(f"Activated {printable(_line(prompt))}")


@prompts.command()
@click.argument("prompt_id", type=int)
@home_option
def deactivate(prompt_id: int) -> None:
    """Switch a prompt off and keep it."""
    with opened_home() as home:
        prompt = home.prompts.change_prompt(prompt_id, is_active=False)
    click.echo(f"Deactivated {printable(_line(prompt))}")


@prompts.command()
@click.argument("prompt_id", type=int)
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_option
def remove(prompt_id: int, *, yes: bool) -> None:
    """Remove a prompt and print its text, so that it can be added again."""
    if not yes:
        click.confirm(f"Remove prompt {prompt_id}? `deactivate` would keep it", abort=True)
    with opened_home() as home:
        prompt = home.prompts.remove_prompt(prompt_id)
    click.echo(f"Removed {printable(_line(prompt))}")
    click.echo(printable(prompt.content))


def _line(prompt: GlobalPrompt) -> str:
    state = "active" if prompt.is_active else "inactive"
    return f"{prompt.id}: {prompt.name} (priority {prompt.priority}, {state})"
