"""Twenty steps of a student and its teacher, by the project's engine and by a plain loop written beside it."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from curate.pretraining.gradients import Step, backward

STEPS, RATE, MOMENTUM = 20, 0.1, 0.9
FIRST = 0.8  # momentum of the teacher at the start; 1 at the end


def require_plain_steps(learner, seen, loss):
    """Both must end with the same weights.

    Args:
        learner: In training mode, with a teacher of momentum FIRST.
        seen: ``seen(seed=step)`` gives the views of a step.
        loss: Of what the student says of two views and the teacher's projections of them, each [b, d].
    """
    plain = copy.deepcopy(learner)
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=RATE, momentum=MOMENTUM)
    for step in range(STEPS):
        optimizer.zero_grad()
        share = (step + 0.5) / STEPS
        backward(learner, seen(seed=step), Step(share, images=8))
        optimizer.step()
        learner.after_step(share)
    _train_plainly(plain, seen, loss)
    for found, wanted in zip(learner.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-8, rtol=0)  # rounding grows with each step


def _train_plainly(learner, seen, loss):
    student = nn.Sequential(learner.backbone, learner.projector, learner.predictor)
    teacher = nn.Sequential(learner.teacher.backbone, learner.teacher.head)
    weights, copied = list(student.parameters()), nn.Sequential(learner.backbone, learner.projector)
    velocity = [torch.zeros_like(w) for w in weights]
    for step in range(STEPS):
        views = seen(seed=step).views
        said = [student(view) for view in views]
        taught = [teacher(view).detach() for view in views]
        gradients = torch.autograd.grad(loss(*said, *taught), weights)
        m = 1 - (1 - FIRST) * (1 + math.cos(math.pi * (step + 0.5) / STEPS)) / 2
        with torch.no_grad():
            for weight, moved, gradient in zip(weights, velocity, gradients, strict=True):
                moved.mul_(MOMENTUM).add_(gradient)
                weight.sub_(RATE * moved)
            for old, new in zip(learner.teacher.parameters(), copied.parameters(), strict=True):
                old.copy_(m * old + (1 - m) * new)
