"""Training steps in PyTorch, as users of transformers write them: `train_step.py BATCH.npz SECONDS`.

Runs in an environment of its own (requirements.txt beside it). BATCH.npz has `ids`, `mask` (B, L), `label` (B,) and,
for a face tower, `faces` uint8 (B, S, S, 3). Prints one JSON object: utterances per second, peak memory in MB.
"""

import json
import resource
import sys
import time

import numpy as np
import torch
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel


class TwoTowers(torch.nn.Module):
    """MiniLM's architecture, and a ResNet50 if there are faces; their vectors are concatenated."""

    def __init__(self, has_faces):
        super().__init__()
        sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
        self.text = BertModel(BertConfig(vocab_size=30522, **sizes))
        self.face = ResNetModel(ResNetConfig()) if has_faces else None
        self.head = torch.nn.Linear(384 + 2048 * has_faces, 7)

    def forward(self, ids, mask, faces=None):
        """Returns the logits."""
        x = self.text(input_ids=ids, attention_mask=mask).pooler_output
        if faces is not None:
            x = torch.cat([x, self.face(faces).pooler_output.flatten(1)], dim=1)
        return self.head(x)


def main(batch_path, seconds):
    """Trains on one batch again and again."""
    with np.load(batch_path) as arrays:
        batch = {name: torch.tensor(arrays[name]) for name in arrays.files}
    inputs = [batch["ids"].long(), batch["mask"].long()]
    if "faces" in batch:
        inputs.append(batch["faces"].permute(0, 3, 1, 2).float() / 127.5 - 1)
    torch.manual_seed(0)
    model = TwoTowers("faces" in batch).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01)
    objective = torch.nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad()
        objective(model(*inputs), batch["label"].long()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    for _ in range(3):
        step()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
    rate = len(batch["label"]) * steps / (time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rate": rate, "memory": memory, "version": f"PyTorch {torch.__version__}"}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
