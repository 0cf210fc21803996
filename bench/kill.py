"""Killing the server in the middle of a burst of writes: nothing acknowledged may be lost."""

import argparse
import random
import sys
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer

from report import print_machine, print_table
from server_process import Message, ServerProcess, soulkeep_command, stored_id
from soulkeep.app import open_home
from soulkeep.models import EmbedderName, MemoryFilter

BURST = 300
"""More calls than a server answers before it is killed."""

COLD_EVERY = 4
"""Every fourth server gets the burst while its embedder is not loaded yet; the others after one call."""

MOMENT_S = (0.010, 0.400)
"""When the kill comes, counted from the first write."""

WORDS = "maple river copper lantern quiet seven harbour violet engine pocket winter thunder".split()


@dataclass(slots=True)
class Campaign:
    """What a series of kills left in one store."""

    kills: int = 0
    mid_burst: int = 0
    sent: set[str] = field(default_factory=set)
    acknowledged: dict[int, str] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    unacknowledged: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def correct(self) -> bool:
        """Whether everything acknowledged is there and the store was whole after every kill."""
        return not (self.lost or self.faults)


def kill_campaign(home: Path, kills: int, seed: int, embedder: EmbedderName = "auto") -> Campaign:
    """Kill a server on one home `kills` times, at random moments, and inspect the store each time.

    Args:
        home: The home, kept from kill to kill.
        kills: How many servers are started and killed.
        seed: Decides the moments and the texts.
        embedder: What the servers turn texts into vectors with.

    Raises:
        NoReplyError: A server does not start on what the last kill left.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable moments
    campaign = Campaign()
    for number in range(kills):
        texts = [_text(chance, f"{number}.{index}") for index in range(BURST)]
        warm_up = texts[:1] if number % COLD_EVERY else []
        server = ServerProcess(soulkeep_command(home), embedder)
        _kill_once(server, warm_up, texts[len(warm_up) :], chance.uniform(*MOMENT_S), campaign)
        _inspect(home, embedder, campaign)
    return campaign


def _text(chance: random.Random, label: str) -> str:
    # Long ones among the short make transactions of several pages.
    length = chance.choice((6, 12, 30, 800))
    return f"Note {label}: {' '.join(chance.choices(WORDS, k=length))}"


def _kill_once(
    server: ServerProcess, warm_up: list[str], texts: list[str], moment_s: float, campaign: Campaign
) -> None:
    requests: dict[int, str] = {}
    campaign.sent.update(warm_up, texts)
    with server:
        server.initialize()
        for text in warm_up:
            requests[request := server.call("remember", content=text)] = text
            server.reply(request)
        killer = Timer(moment_s, server.process.kill)
        killer.start()
        # The pipe breaks when the kill comes while lines are still being written.
        with suppress(OSError):
            for text in texts:
                requests[server.call("remember", content=text)] = text
        killer.join()
    campaign.kills += 1
    replies = {number: reply for number, reply in server.replies().items() if number in requests}
    campaign.mid_burst += len(warm_up) < len(replies) < len(warm_up) + len(texts)
    for number, reply in replies.items():
        _take(reply, requests[number], campaign)
    campaign.faults += [f"stderr: {line}" for line in server.stderr_lines]


def _take(reply: Message, text: str, campaign: Campaign) -> None:
    memory_id = stored_id(reply)
    if memory_id is None:
        campaign.faults.append(f"refused: {reply}")
    elif memory_id in campaign.acknowledged:
        campaign.faults.append(f"memory {memory_id} was acknowledged twice")
    else:
        campaign.acknowledged[memory_id] = text


def _inspect(home: Path, embedder: EmbedderName, campaign: Campaign) -> None:
    with closing(open_home(home, embedder=embedder)) as opened:
        faults = opened.check()
        found = opened.repository.memories.list_memories(MemoryFilter(), -1)
        stored = {memory.id: memory.content for memory in found}
    when = f"after kill {campaign.kills}"
    campaign.faults += [f"{when}: {fault.name}: {fault.detail}" for fault in faults]
    foreign = [number for number, text in stored.items() if text not in campaign.sent]
    campaign.faults += [f"{when}: memory {number} was never sent" for number in foreign]
    campaign.lost |= {
        number for number, text in campaign.acknowledged.items() if stored.get(number) != text
    }
    campaign.unacknowledged = len(stored.keys() - campaign.acknowledged.keys())


def report(campaign: Campaign, seed: int) -> None:
    """Print the table and whatever is wrong."""
    print_table(
        f"kill -9 during a burst of writes, one home, seed {seed}",
        ["kills", "mid-burst", "acknowledged", "lost", "unacknowledged but there", "faults"],
        [
            [
                campaign.kills,
                campaign.mid_burst,
                len(campaign.acknowledged),
                len(campaign.lost),
                campaign.unacknowledged,
                len(campaign.faults),
            ]
        ],
    )
    for number in sorted(campaign.lost):
        print(f"  lost: memory {number}")
    for fault in campaign.faults:
        print(f"  {fault}")


def main() -> None:
    """Kill, inspect and print; exit code 1 on any loss or fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        campaign = kill_campaign(Path(folder) / "home", options.kills, options.seed)
    report(campaign, options.seed)
    print("\nNothing acknowledged was lost." if campaign.correct else "\nINCORRECT: see above.")
    sys.exit(0 if campaign.correct else 1)


if __name__ == "__main__":
    main()
