"""A made-up log of an enterprise, with anomalies that are known and a detector that knows how it was made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphcl.data.events import Events
from graphcl.data.ids import IdMap

__all__ = ["EnterpriseLog", "enterprise_log"]

FloatArray = NDArray[np.float64]

#: Entity type -> entities, and in how many teams an entity of the type is at home on average.
_TYPES = {
    "user": (3000, 1.0),
    "host": (2000, 1.2),
    "process": (300, 2.0),
    "destination": (600, 2.0),
    "hour": (24, 8.0),
}
_BACKGROUND = 5e-4


@dataclass(frozen=True, eq=False)
class EnterpriseLog:
    """A generated log and the law that it follows.

    Attributes:
        events: the log with its labels.
        prior: ``(T,)`` share of every team.
        conditionals: for each type ``(T, A_i)`` how often a team meets each entity.
    """

    events: Events
    prior: FloatArray
    conditionals: tuple[FloatArray, ...]

    def oracle_scores(self, rows: slice | NDArray[np.int64] | None = None) -> FloatArray:
        r"""The best possible anomaly score: log odds of an event being an anomaly, which only the generator knows.

        .. math:: \log \frac1m \sum_i p(e_{-i})\, p_i(e_i) - \log p(e), \qquad
            p(e) = \sum_t \pi_t \prod_i p_i(e_i \mid t)

        Args:
            rows: of the log; all of them when None.

        Returns:
            One score an event, high for anomalies.

        Complexity: O(E m T).
        """
        from scipy.special import logsumexp

        codes = self.events.codes if rows is None else self.events.codes[rows]
        parts = [np.log(table[:, codes[:, position]]) for position, table in enumerate(self.conditionals)]
        joint = np.log(self.prior)[:, None] + sum(parts)
        replaced = [
            logsumexp(joint - part, axis=0) + np.log(self.prior @ table)[codes[:, position]]
            for position, (part, table) in enumerate(zip(parts, self.conditionals, strict=True))
        ]
        odds: FloatArray = logsumexp(np.stack(replaced), axis=0) - np.log(len(parts)) - logsumexp(joint, axis=0)
        return odds


def enterprise_log(
    num_events: int = 20_000,
    *,
    scale: float = 0.1,
    num_teams: int = 60,
    anomaly_rate: float = 0.01,
    seed: int = 0,
) -> EnterpriseLog:
    """Draw a log of users on hosts that start processes which reach destinations at some hour.

    Every event belongs to a team that nobody sees. A team has its own users and hosts, shares processes and
    destinations with few other teams and working hours with many; popularity falls as a power of the rank. In an
    anomaly one entity of a normal event, of a random type, is replaced by one that follows the popularity over the
    whole log, so that every entity looks normal by itself and only the combination does not.

    Args:
        num_events: E, at least 1.
        scale: factor of the numbers of entities: at 1 there are 3,000 users, 2,000 hosts, 300 processes, 600
            destinations, and 24 hours at any scale.
        num_teams: T; fewer where there are fewer processes than teams.
        anomaly_rate: probability of an anomaly, in [0, 1).
        seed: of all draws.

    Returns:
        The log, in the order of drawing, with labels.

    Raises:
        ValueError: an argument is out of range.

    Complexity: O(E m log A + T sum A).

    Example:
        >>> log = enterprise_log(1000)
        >>> log.events.columns, int(log.events.label.sum()) < 50
        (('user', 'host', 'process', 'destination', 'hour'), True)
    """
    if num_events < 1 or num_teams < 1:
        raise ValueError(f"num_events and num_teams must be at least 1, got {num_events} and {num_teams}")
    if not scale > 0:
        raise ValueError(f"scale must be above 0, got {scale}")
    if not 0 <= anomaly_rate < 1:
        raise ValueError(f"anomaly_rate must lie in [0, 1), got {anomaly_rate}")
    generator = np.random.default_rng(seed)
    sizes = {name: size if name == "hour" else max(4, round(scale * size)) for name, (size, _) in _TYPES.items()}
    teams = min(num_teams, sizes["process"])
    prior = generator.dirichlet(np.full(teams, 2.0))
    conditionals = tuple(_habits(generator, sizes[name], teams, homes) for name, (_, homes) in _TYPES.items())
    team = generator.choice(teams, num_events, p=prior)
    codes = np.empty((num_events, len(conditionals)), dtype=np.int64)
    for number in range(teams):
        rows = np.flatnonzero(team == number)
        for position, table in enumerate(conditionals):
            codes[rows, position] = generator.choice(table.shape[1], rows.size, p=table[number])
    label = generator.random(num_events) < anomaly_rate
    strange = np.flatnonzero(label)
    kind = generator.integers(0, len(conditionals), strange.size)
    for position, table in enumerate(conditionals):
        rows = strange[kind == position]
        codes[rows, position] = generator.choice(table.shape[1], rows.size, p=prior @ table)
    ids = tuple(
        IdMap(np.arange(size)) if name == "hour" else IdMap([f"{name}-{number:05d}" for number in range(size)])
        for name, size in sizes.items()
    )
    return EnterpriseLog(Events(tuple(sizes), ids, codes, label, "enterprise-log"), prior, conditionals)


def _habits(generator: np.random.Generator, size: int, teams: int, homes: float) -> FloatArray:
    """How often each team meets each entity: its own ones by popularity, and now and then any other."""
    popularity = (generator.permutation(size) + 1.0) ** -0.8
    own = max(2, round(size * homes / teams))
    # Teams take their entities from shuffled decks, so that every entity has about as many homes.
    decks = np.concatenate([generator.permutation(size) for _ in range(-(-own * teams // size))])
    table = np.zeros((teams, size))
    for number in range(teams):
        mine = np.unique(decks[number * own : (number + 1) * own])
        table[number, mine] = popularity[mine] * generator.gamma(2.0, 1.0, mine.size)
    table /= table.sum(axis=1, keepdims=True)
    habits: FloatArray = (1 - _BACKGROUND) * table + _BACKGROUND * popularity / popularity.sum()
    return habits
