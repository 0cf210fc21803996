"""`soulkeep completion`: the script with which a shell completes commands and options."""

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from soulkeep.cli.commands import Command

_SHELLS: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


_HELP = """Print what makes a SHELL complete commands and options.

\b
In bash, put into ~/.bashrc:
  eval "$(soulkeep completion bash)"
In zsh, put into ~/.zshrc:
  eval "$(soulkeep completion zsh)"
In fish, run once:
  soulkeep completion fish > \\
    ~/.config/fish/completions/soulkeep.fish
"""


@click.command(cls=Command, help=_HELP)
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script for a shell."""
    complete = _SHELLS[shell](context.find_root().command, {}, "soulkeep", "_SOULKEEP_COMPLETE")
    click.echo(complete.source())
