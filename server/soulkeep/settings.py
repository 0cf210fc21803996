"""What the user configured: the environment and the command line, read once into a frozen object."""

from pathlib import Path

from platformdirs import user_data_path
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from soulkeep.models import EmbedderName


class Settings(BaseSettings):
    """Every setting; each is read from the environment variable `SOULKEEP_` plus its name."""

    model_config = SettingsConfigDict(env_prefix="SOULKEEP_", frozen=True, env_ignore_empty=True)

    home: Path = Field(
        default_factory=lambda: user_data_path("soulkeep", appauthor=False),
        description="The folder of the store and the documents.",
    )
    embedder: EmbedderName = Field(
        default="auto",
        description="auto: wordllama where it is installed, else none. none: search by words alone.",
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()
