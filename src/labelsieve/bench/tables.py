"""The tables of an experiment: methods as rows, data and noises as columns, mean and deviation over the seeds."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from labelsieve.bench.comparison import MetricComparison, summary
from labelsieve.bench.experiment import Cell, Experiment
from labelsieve.bench.plots import plot, plot_reliability
from labelsieve.bench.table_values import Column, Records, Spread, column_names, columns, series, spread, values
from labelsieve.core.files import write_atomically, write_text
from labelsieve.core.spreadsheets import escaped
from labelsieve.metrics import METRICS

if TYPE_CHECKING:
    from labelsieve.bench.config import Against
    from labelsieve.bench.published import PaperNumbers

RESULTS_CSV, RESULTS_MD = "results.csv", "results.md"
_MISSING = "\N{EN DASH}"


def write_tables(experiment: Experiment, records: Records, folder: Path) -> None:
    """Writes `results.csv` with every cell of the experiment, and `results.md` with its tables.

    Args:
        experiment: The experiment.
        records: The records of measured cells, by :meth:`Experiment.key`; those of other cells are left out.
        folder: Folder of both files.
    """
    cell_records = {key: records[key] for key in map(experiment.key, experiment.cells()) if key in records}
    _write_csv(experiment, cell_records, folder / RESULTS_CSV)
    write_text(folder / RESULTS_MD, "\n".join(_markdown(experiment, cell_records)) + "\n")


def write_plots(experiment: Experiment, records: Records, folder: Path) -> None:
    """Draws a plot of each table with one metric, and a reliability diagram if a table has the calibration error.

    Args:
        experiment: The experiment.
        records: The records of measured cells, by :meth:`Experiment.key`.
        folder: Folder of the SVG files, which are named by metric and text regime.
    """
    for metrics in experiment.tables:
        for text in experiment.texts if len(metrics) == 1 else ():
            plot(
                {name: series(experiment, records, name, metrics[0], text) for name in experiment.methods(text)},
                title=METRICS[metrics[0]].title,
                columns=column_names(experiment),
                path=folder / f"{'-'.join([metrics[0], *([text] if text else [])])}.svg",
            )
    if any("ece" in metrics for metrics in experiment.tables):
        plot_reliability(reliability(experiment, records), path=folder / "reliability.svg")


def reliability(experiment: Experiment, records: Records) -> dict[str, list[list[float]]]:
    """Returns the bins of each method, see :func:`labelsieve.metrics.calibration`, summed over all cells."""
    bins_of_methods: dict[str, list[list[float]]] = {}
    for cell in experiment.cells():
        bins = records.get(experiment.key(cell), {}).get("reliability")
        if bins:
            total = bins_of_methods.get(cell.method, [[0.0] * 3] * len(bins))
            bins_of_methods[cell.method] = [
                [a + b for a, b in zip(*pair, strict=True)] for pair in zip(total, bins, strict=True)
            ]
    return bins_of_methods


def _write_csv(experiment: Experiment, records: Records, path: Path) -> None:
    rows = [{**records[key], **cell.parts} for cell in experiment.cells() if (key := experiment.key(cell)) in records]
    parts = [name for name in Cell._fields if name != "text" or experiment.text]
    first = [*parts, *(name for name in METRICS if any(name in row for row in rows))]
    names = first + sorted({name for row in rows for name in row} - {*first, "key", "group", "reliability"})
    with write_atomically(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=names, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: escaped(cell) if isinstance(cell, str) else cell for name, cell in row.items()})


def _markdown(experiment: Experiment, records: Records) -> Iterator[str]:
    cells = list(experiment.cells())
    done = sum(experiment.key(cell) in records for cell in cells)
    yield f"# {experiment.title}"
    yield ""
    yield f"{done} of {len(cells)} cells measured; seeds {', '.join(map(str, experiment.seeds))}."
    yield _environment(records)
    yield "Shares and scores in %, mean ± sample standard deviation over the seeds; the best of one metric is bold."
    for metrics in experiment.tables:
        for text in experiment.texts:
            yield ""
            yield f"## {' / '.join(METRICS[metric].title for metric in metrics)}{f', text: {text}' if text else ''}"
            yield ""
            yield f"| method | {' | '.join(map(_cell_text, column_names(experiment)))} |"
            yield "|---|" + "---:|" * len(columns(experiment))
            yield from _rows(experiment, records, metrics, text)
    if experiment.against is not None:
        yield from _rival_table(experiment, experiment.against, records)
    if experiment.published is not None:
        yield ""
        yield f"## Beside {experiment.published.source}"
        yield ""
        yield "The mean over our seeds, the paper, and ours less the paper, in %."
        yield ""
        yield from published_table(experiment, experiment.published, records)


def published_table(experiment: Experiment, published: PaperNumbers, records: Records) -> Iterator[str]:
    """Yields a table of measured and published numbers and their difference in points, with a row for each cell.

    Args:
        experiment: Has one model and one text regime.
        published: The numbers of the paper, in percent.
        records: The records of measured cells, by :meth:`Experiment.key`.
    """
    titles = (f"{METRICS[metric].title}: ours | paper | difference" for metric in published.metrics)
    yield f"| data | noise | method | {' | '.join(titles)} |"
    yield "|---|---|---|" + "---:|---:|---:|" * len(published.metrics)
    (model,), (text,) = experiment.model, experiment.texts
    for (data, noise, method), numbers in published.cells():
        column, is_measured = Column(model, data, noise, text), method not in published.only_published
        means = [
            _measured_mean(experiment, records, column, method, metric) if is_measured else None
            for metric in published.metrics
        ]
        parts = [_comparison_cells(measured, number) for measured, number in zip(means, numbers, strict=True)]
        yield f"| {' | '.join([*map(_cell_text, (data, noise, method)), *parts])} |"


def _measured_mean(experiment: Experiment, records: Records, column: Column, method: str, metric: str) -> float | None:
    """Returns the mean over the seeds in %; None if nothing was measured."""
    result = spread(values(experiment, records, column, method, metric, experiment.seeds))
    return None if result is None else 100 * result.mean


def _comparison_cells(measured: float | None, number: float) -> str:
    if measured is None:
        return f"{_MISSING} | {number:.2f} | {_MISSING}"
    return f"{measured:.2f} | {number:.2f} | {measured - number:+.2f}"


def _rival_table(experiment: Experiment, against: Against, records: Records) -> Iterator[str]:
    """Yields a table that compares a method with the best rival, with a row for each text regime."""
    yield ""
    yield f"## {against.method} against the best rival"
    yield ""
    yield (
        "Over the cells (data, noise) with wrong labels that all methods were measured on: in how many the method is "
        "ahead of the best other one that is not given the noise rate, or so many points behind at most; the worst "
        "difference, in points; in how many the estimated noise rate is so near to the true one. Last, what is flagged "
        "of right labels: mean / most."
    )
    yield ""
    titles = [
        f"{METRICS[metric].title}: ahead or within {100 * margin:g} | worst"
        for metric, margin in against.within.items()
    ]
    near = f"noise rate within {100 * against.rate_within:g}"
    yield f"| text | cells | {' | '.join([*titles, near, 'flagged of right labels'])} |"
    yield "|---|---:|" + "---:|---|" * len(titles) + "---:|---:|"
    for row in summary(experiment, records, against):
        parts = [part for each in row.comparisons for part in (_count_of(each.wins, each.cells), _worst(each))]
        right = f"{100 * mean(row.flagged):.1f} / {100 * max(row.flagged):.1f}" if row.flagged else _MISSING
        parts += [_count_of(row.close_rates, row.estimated_rates), right]
        yield f"| {row.text} | {row.cells} of {row.all_cells} | {' | '.join(parts)} |"


def _count_of(count: int, total: int) -> str:
    return f"{count} of {total}" if total else _MISSING


def _worst(comparison: MetricComparison) -> str:
    if comparison.worst is None:
        return _MISSING
    worst = comparison.worst
    return _cell_text(f"{100 * worst.difference:+.2f} ({worst.data}, {worst.noise}: {worst.rival})")


def _cell_text(name: str) -> str:
    """Escapes a name for a cell of a Markdown table."""
    return name.replace("|", "\\|")


def _environment(records: Records) -> str:
    """Returns hardware, version of PyTorch and dates of the measurements."""
    hardware = sorted({str(record["hardware"]) for record in records.values()})
    torch = sorted({str(record["versions"].get("torch")) for record in records.values()})
    days = sorted({str(record["created"])[:10] for record in records.values()})
    if not days:
        return ""
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"Hardware: {'; '.join(hardware)}. PyTorch {', '.join(torch)}. {when}."


def _rows(experiment: Experiment, records: Records, metrics: Sequence[str], text: str) -> Iterator[str]:
    values_of_methods = {
        method: [series(experiment, records, method, metric, text) for metric in metrics]
        for method in experiment.methods(text)
    }
    positions = range(len(columns(experiment)))
    best = [_best([parts[0][position] for parts in values_of_methods.values()], metrics) for position in positions]
    for method, parts in values_of_methods.items():
        texts = [_text([values[position] for values in parts], metrics, best=best[position]) for position in positions]
        yield f"| {_cell_text(method)} | {' | '.join(texts)} |"


def _best(values: Sequence[Spread | None], metrics: Sequence[str]) -> str | None:
    """Returns the best mean of a column as printed; None for several metrics or one method."""
    present = [value for value in values if value is not None]
    metric = METRICS[metrics[0]]
    if len(metrics) > 1 or metric.best == "none" or len(present) < 2:
        return None
    best = metric.text(max((value.mean for value in present), key=metric.merit))
    return best if any(metric.text(value.mean) != best for value in present) else None


def _text(values: Sequence[Spread | None], metrics: Sequence[str], *, best: str | None) -> str:
    if len(metrics) > 1:  # as in papers; deviations are only in tables with one metric
        return " / ".join(_number(value, metric, spread=False) for value, metric in zip(values, metrics, strict=True))
    text = _number(values[0], metrics[0], spread=True)
    return f"**{text}**" if best is not None and _number(values[0], metrics[0], spread=False) == best else text


def _number(value: Spread | None, metric: str, *, spread: bool) -> str:
    if value is None:
        return _MISSING
    text, deviation = METRICS[metric].text, value.deviation if spread else None
    return text(value.mean) if deviation is None else f"{text(value.mean)} ± {text(deviation)}"
