"""Builds the `WindowBuilder` of a mixture: the stores of its leaves and the plan.

Worker processes unpickle the builder: no TensorFlow here.
"""

import logging
import resource

from instruct.data.config import DataConfig
from instruct.data.feed.plan import Plan
from instruct.data.feed.window import FeedLeaf, WindowBuilder
from instruct.data.spec import Leaf, Resolved
from instruct.data.stores.store import leaf_manifest
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.prompts.denoising import DenoiserSet
from instruct.prompts.frame import EOS
from instruct.workspace import Workspace

_log = logging.getLogger(__name__)


def _feed_leaf(workspace: Workspace, leaf: Leaf, split: str, config: DataConfig) -> FeedLeaf | None:
    """None if a store is missing."""
    manifest, path = leaf_manifest(workspace, leaf, split, config)
    if manifest is None:
        return None
    spec, store = leaf.spec, (path, manifest.sha256)
    if spec is None:
        return FeedLeaf(leaf.name, leaf.mode, store, manifest.num_records, None)
    exemplar_store, exemplar_split = ("", ""), spec.exemplar_split_of(leaf.mode)
    if exemplar_split:
        exemplars, exemplar_path = leaf_manifest(workspace, leaf, exemplar_split, config)
        if exemplars is None:
            return None
        exemplar_store = (exemplar_path, exemplars.sha256)
    templates, shots = spec.templates, spec.fixed_shots(leaf.mode)
    records = manifest.num_records
    return FeedLeaf(leaf.name, leaf.mode, store, records, templates, exemplar_store, shots)


def check_split(resolved: Resolved, split: str) -> None:
    """Raises UserError unless every leaf has the split."""
    lacking = [leaf for leaf in resolved.leaves if split not in leaf.splits]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(resolved.leaves)} tasks of {resolved.name!r} have no split "
            f"{split!r}, such as {lacking[0].name}, which has "
            f"{', '.join(lacking[0].splits) or 'none'}. Set DataConfig.split to one that all have, "
            "or leave them out of the mixture"
        )


def make_builder(
    workspace: Workspace, config: DataConfig, resolved: Resolved, training: bool = True
) -> tuple[WindowBuilder, tuple[Leaf, ...]]:
    """The window builder of `config.split`, and the leaves that `decoder_task_ids` - 1 indexes.

    Training needs records of every leaf. Evaluation skips leaves without records in the split, and
    inverted prompts.

    Raises:
        UserError: stores are missing, or leaves are empty or lack the split.
    """
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # every store is an open file
    vocabulary, split = load_vocabulary(config.vocabulary), config.split
    for leaf in resolved.leaves:
        if leaf.spec is not None and isinstance(leaf.spec.templates, DenoiserSet):
            leaf.spec.templates.sentinels(leaf.mode, vocabulary)  # an error here, not in a worker
    if training:
        check_split(resolved, split)
        own = [
            leaf.name
            for leaf in resolved.leaves
            if leaf.spec is None or isinstance(leaf.spec.templates, DenoiserSet)
        ]
        if own and (config.chat_template or config.separator != EOS):
            _log.warning(
                "%d plain seqio or pretraining tasks (%s) keep their own tokens: no chat template "
                "or separator surrounds their prompts and answers",
                len(own),
                ", ".join(own[:5]),
            )
    feed_leaves = [_feed_leaf(workspace, leaf, split, config) for leaf in resolved.leaves]
    missing = [leaf.name for leaf, feed in zip(resolved.leaves, feed_leaves) if feed is None]
    if missing and training:
        raise UserError(
            f"{len(missing)} of {len(feed_leaves)} tasks of {resolved.name!r} have no store of "
            f"split {split!r} ({', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}). Run "
            "`python run.py prepare` with the same settings, or set STORE_DIR"
        )
    empty = [feed.name for feed in feed_leaves if feed is not None and not feed.num_records]
    if empty and training:
        raise UserError(
            f"tasks without a single record in split {split!r}: {', '.join(empty[:5])}. Leave "
            "them out of the mixture; `prepare` lists why rows were dropped"
        )
    usable = [
        (leaf, feed)
        for leaf, feed in zip(resolved.leaves, feed_leaves)
        if feed is not None and feed.num_records and (training or not leaf.inverted)
    ]
    if not usable:
        raise UserError(f"no task of {resolved.name!r} has prepared records in split {split!r}")
    leaves = tuple(leaf for leaf, _ in usable)
    feeds = tuple(feed for _, feed in usable)
    plan = Plan(
        [leaf.rate for leaf in leaves],
        [feed.num_records for feed in feeds],
        config.seed,
        config.plan,
        groups=[feed.store[0] for feed in feeds],
        share=config.records_share if training else 1.0,
    )
    return WindowBuilder(feeds, plan, config), leaves
