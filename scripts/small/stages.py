"""The stages of the bundled model, in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that decides the result."""

    data: Path
    work: Path
    seed: int = 13
    vocabulary: int = 28_000
    floor: int = 100  # how often each of the teacher's words counts on top of the corpus
    pretrain_steps: int = 1200
    mntp_steps: int = 60
    mntp_documents: int = 3000
    simcse_steps: int = 30
    simcse_sentences: int = 20_000
    shards: int = 14  # of lessons.SHARD groups
    words_steps: int = 400
    distill_steps: int = 600
    contrastive_queries: int = 8192
    contrastive_steps: int = 60
    threads: int = 2


def prepare(options: Options) -> None:
    """Teacher, tokenizer, how often each entry occurs, and the teacher's vector for it."""
    import numpy as np
    import pairs
    import pretrain
    import student
    import teacher
    import vocabulary

    folder = teacher.fetch(options.work)
    known = vocabulary.known_words(folder / "vocab.txt")
    texts = pairs.read_texts(options.data)
    tokenizer = vocabulary.train_tokenizer(
        texts, known, size=options.vocabulary, floor=options.floor
    )
    rows = vocabulary.token_ids(tokenizer, pairs.read_lines(options.data / "train/train.txt.gz"))
    blocks = pretrain.pack(rows, tokenizer.bos_token_id, 256)
    share = np.bincount(blocks.reshape(-1), minlength=len(tokenizer)) / blocks.size
    vectors = vocabulary.token_vectors(tokenizer, teacher.Teacher(folder).encode, options.seed)
    tokenizer.save_pretrained(options.work / "tokenizer")
    partial = options.work / "partial.npz"
    np.savez(
        partial,
        blocks=blocks.astype(np.uint16),
        share=share,
        vectors=vectors,
        axes=student.principal_axes(vectors),
    )
    partial.rename(options.work / "prepared.npz")


def language_model(options: Options) -> None:
    """Causal language modelling over the passages; word vectors stay the teacher's."""
    import numpy as np
    import pretrain
    import runs
    import student

    tokenizer, found = student.load_tokenizer(options.work), np.load(options.work / "prepared.npz")
    model = student.make_language_model(tokenizer, options.seed)
    student.start_as_bag_of_words(
        model.model, found["vectors"] @ found["axes"], found["share"], student.SMOOTH_LANGUAGE
    )
    model.model.norm.weight.data.fill_(1.0)
    run = runs.Run(name="pretrain", folder=options.work / "log", steps=options.pretrain_steps)
    blocks = found["blocks"].astype(np.int64)
    pretrain.pretrain(model, blocks, found["share"], run, seed=options.seed)
    model.save_pretrained(options.work / "pretrained")
    tokenizer.save_pretrained(options.work / "pretrained")


def mntp(options: Options) -> None:
    """The project's own stage: attention in both directions, hidden tokens predicted."""
    import pairs
    import student

    from llm_embeddings.training.mntp import MNTP, train_mntp

    lines = pairs.read_lines(options.data / "train/train.txt.gz")[: options.mntp_documents]
    texts = options.work / "mntp.txt"
    texts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    train_mntp(
        MNTP(
            model=str(options.work / "pretrained"),
            output=options.work / "mntp",
            data=(str(texts),),
            recipe=student.RECIPE,
            max_steps=options.mntp_steps,
            batch_size=16,
            block_length=256,
            batch_tokens=4096,
            learning_rate=1e-3,
            warmup=20,
            schedule="cosine",
            lora=None,
            dtype="auto",
            seed=options.seed,
            save_every=50,
            resume=True,
            show_progress=False,
        )
    )


def simcse(options: Options) -> None:
    """The project's own stage: a sentence is itself, whatever dropout hides of it."""
    import pairs
    import student

    from llm_embeddings.training.simcse import SimCSE, train_simcse

    lines = pairs.read_lines(options.data / "train/sentences.txt.gz")[: options.simcse_sentences]
    texts = options.work / "simcse.txt"
    texts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    train_simcse(
        SimCSE(
            model=str(options.work / "mntp"),
            output=options.work / "simcse",
            data=(str(texts),),
            recipe=student.RECIPE,
            max_steps=options.simcse_steps,
            batch_size=128,
            batch_tokens=4096,
            learning_rate=3e-4,
            warmup=10,
            lora=None,
            dtype="auto",
            seed=options.seed,
            save_every=50,
            resume=True,
            show_progress=False,
        )
    )


def lessons(options: Options) -> None:
    """The teacher's vectors for mined pairs, sentences and made-up word lists."""
    import lessons as lesson_files
    import numpy as np
    import student
    import teacher

    tokenizer, found = student.load_tokenizer(options.work), np.load(options.work / "prepared.npz")
    groups = lesson_files.read_groups(options.data, tokenizer, found["share"], options.seed)
    groups = groups[: options.shards * lesson_files.SHARD]
    model = teacher.Teacher(teacher.fetch(options.work))
    lesson_files.write_lessons(groups, model.encode, options.work / "lessons")


def words(options: Options) -> None:
    """The teacher copied into word vectors alone: no layer runs, a hundredth of the cost."""
    import distill
    import numpy as np
    import runs
    import student

    tokenizer, found = student.load_tokenizer(options.work), np.load(options.work / "prepared.npz")
    model = student.make_language_model(tokenizer, options.seed).model
    student.start_as_bag_of_words(
        model, student.centred(found) @ found["axes"], found["share"], student.SMOOTH
    )
    distill.distill(
        model,
        distill.load(options.work, tokenizer, found["axes"]),
        runs.Run(name="words", folder=options.work / "log", steps=options.words_steps),
        embed=distill.bag_embed(model),
        groups=1024,
        word_rate=1e-2,
        layer_rate=1e-3,
        seed=options.seed,
    )
    student.save(model, tokenizer, options.work / "words")


def distillation(options: Options) -> None:
    """All weights: layers as language modelling left them, word vectors from `words`."""
    import distill
    import numpy as np
    import runs
    import student

    tokenizer, found = student.load_tokenizer(options.work), np.load(options.work / "prepared.npz")
    model = student.join(options.work / "simcse", options.work / "words")
    distill.distill(
        model,
        distill.load(options.work, tokenizer, found["axes"]),
        runs.Run(
            name="distill", folder=options.work / "log", steps=options.distill_steps, warmup=50
        ),
        embed=distill.model_embed(model),
        groups=128,
        word_rate=5e-4,
        layer_rate=1.5e-3,
        seed=options.seed,
    )
    student.save(model, tokenizer, options.work / "distilled")


def contrastive(options: Options) -> None:
    """The project's own stage, on queries with passages the teacher nearly takes for answers."""
    import lessons as lesson_files
    import negatives
    import student

    from llm_embeddings.training.contrastive import Contrastive, train_contrastive

    rows = options.work / "contrastive.jsonl"
    found = lesson_files.read_lessons(options.work / "lessons")
    negatives.write(found, rows, count=options.contrastive_queries, depth=3, seed=options.seed)
    train_contrastive(
        Contrastive(
            model=str(options.work / "distilled"),
            output=options.work / "contrastive",
            data=(str(rows),),
            recipe=student.RECIPE,
            max_steps=options.contrastive_steps,
            batch_size=64,
            batch_tokens=4096,
            negatives=1,
            temperature=0.05,
            learning_rate=1e-4,
            warmup=10,
            lora=None,
            dtype="auto",
            seed=options.seed,
            save_every=50,
            resume=True,
            show_progress=False,
        )
    )


def store(options: Options) -> None:
    """The release: word vectors in float8, the rest in float16."""
    import student

    student.store(options.work / "contrastive", options.work / "final")
