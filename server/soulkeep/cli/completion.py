"""`soulkeep completion`: the script with which a shell completes commands and options."""

import click
from click.shell_completion import get_completion_class

_FILES = {
    "bash": 'eval "$(soulkeep completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(soulkeep completion zsh)" in ~/.zshrc',
    "fish": "soulkeep completion fish | source in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\n" + "\n".join(_FILES.values()))
@click.argument("shell", type=click.Choice(list(_FILES)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a SHELL complete commands and options.

    Put the line of your shell below into its file.
    """
    maker = get_completion_class(shell)
    if maker is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    command = context.find_root().command
    click.echo(maker(command, {}, "soulkeep", "_SOULKEEP_COMPLETE").source())
