"""Ways to break the library, each of which a test must notice.

python -m tests.mutations           all of them, some minutes
python -m tests.mutations kl adam   those with one of these words in what they do

Each is made in a copy of the project, where the tests named with it then run: they have to fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyro_vbd

ROOT = Path(__file__).parents[1]
COPIED = (
    Path(pyro_vbd.__file__).parent,
    *(ROOT / name for name in ("models", "examples", "tests", "docs", "README.md", "pyproject.toml")),
)


@dataclass(frozen=True)
class Mutation:
    """A change of one place, and the tests that are there for it."""

    #: What is wrong then.
    what: str
    #: Below ``pyro_vbd/``.
    file: str
    old: str
    new: str
    #: Below ``tests/``, with a pattern of names behind a space where one suffices.
    tests: str

    @property
    def path(self) -> Path:
        return Path("pyro_vbd", self.file)


MUTATIONS = [
    Mutation("the KL is added to the bound", "elbo.py",
             "log_likelihood - self.kl_weight * kl", "log_likelihood + self.kl_weight * kl", "test_elbo.py"),
    Mutation("particles are summed, not averaged", "elbo.py",
             'site["log_prob_sum"] / self.num_particles', 'site["log_prob_sum"]', "test_elbo.py"),
    Mutation("weights of single sites' KLs are forgotten", "elbo.py",
             "first_match(self.site_weights, s, 1.0) * kl", "kl", "test_elbo.py"),
    Mutation("a pattern of the ELBO that matches nothing goes unnoticed", "site_patterns.py",
             "if lost := idle(patterns, sites):", "if False:", "test_elbo.py test_site_patterns.py"),
    Mutation("data under a mask count in the validation loss", "counted.py",
             'found = found & _elementwise(site["mask"], fn, value)', "pass", "training/test_evaluation.py"),
    Mutation("parameters made in inference mode stay of it", "guide.py",
             "@torch.inference_mode(False)", "@torch.enable_grad()", "test_guide.py inference"),
    Mutation("an expanded distribution no longer validates", "distributions/positive.py",
             "other._validate_args = self._validate_args", "other._validate_args = False",
             "distributions/test_positive.py"),
    Mutation("a loader's batches are held all at once", "predict.py",
             "tqdm(_batches(x, batch_size)", "tqdm(list(_batches(x, batch_size))", "test_predict.py"),
    Mutation("the collapsed KL is twice what it is", "kl.py",
             "return 0.5 * torch.log1p(inverse_alpha)", "return torch.log1p(inverse_alpha)", "test_kl.py"),
    Mutation("the KL's gradient in log_var has the wrong sign", "kl.py",
             ".div_(prior_variance).sub_(grad).mul_(0.5)", ".div_(prior_variance).add_(grad).mul_(0.5)", "test_kl.py"),
    Mutation("the KL of a site is a mean over weights", "site_kl.py",
             ".sum()", ".mean()", "test_site_kl.py test_elbo.py"),
    Mutation("the second moment lacks the mean", "posterior/mean_field.py",
             "return torch.addcmul(self.variance, self.loc, self.loc)", "return self.variance",
             "posterior/test_mean_field.py"),
    Mutation("the variance of an output is linear in the inputs", "estimators/rules.py",
             "variances[name] = named[name].square()", "variances[name] = named[name]", "estimators/test_rules.py"),
    Mutation("a fixed bias counts in the variance too", "estimators/rules.py",
             'variances["bias"] = None', 'variances["bias"] = bias', "estimators/test_rules.py"),
    Mutation("noise of the variance instead of the deviation", "estimators/gaussian_tensor.py",
             "variance.clamp_min(least).sqrt()", "variance.clamp_min(least)",
             "estimators/test_rules.py"),
    Mutation("a weight that was drawn gets noise of its own", "estimators/gaussian_tensor.py",
             "rule is not None and not any(leaf.is_drawn for leaf in gaussians)", "rule is not None",
             "estimators/test_gaussian_tensor.py"),
    Mutation("flipout without the outputs' signs", "estimators/flipout.py",
             "_signs(mean, feature_dim).expand_as(mean)", "torch.ones_like(mean)", "estimators/test_flipout.py"),
    Mutation("a weight that is never read goes unnoticed", "paired_traces.py",
             "    if unread:", "    if False:", "test_paired_traces.py"),
    Mutation("the batch is taken for the data set", "supervised.py",
             "max(self.num_data, batch), subsample", "batch, subsample", "test_supervised.py"),
    Mutation("gamma's optimum is the sum, not the mean", "priors/gaussian_uniform.py",
             "sum_of_squares / count", "sum_of_squares", "priors/test_gaussian_uniform.py"),
    Mutation("the exact posterior's bound has the wrong sign", "posterior/exact_scale.py",
             "precision.log() - log_z - 0.5", "precision.log() + log_z - 0.5", "posterior/test_exact_scale.py"),
    Mutation("mutual information is the whole entropy", "predict.py",
             "(entropy - self.entropy / count)", "(entropy)", "test_predict.py"),
    Mutation("epistemic variance is the variance of one draw's mean", "predict.py",
             "epistemic = self.squares / count", "epistemic = self.squares / count**2", "test_predict.py"),
    Mutation("masks keep what they should remove", "relevance.py",
             "(value <= limits[site])", "(value > limits[site])", "test_relevance.py"),
    Mutation("the relevance of a unit has its sign turned", "relevance.py",
             "variance.log() - square.log()", "square.log() - variance.log()", "test_relevance.py"),
    Mutation("Adam in the graph without the correction of its first moment", "compiling/adam.py",
             "(rates / (1.0 - torch.exp(counts * log_beta1)))", "rates", "compiling/test_adam.py"),
    Mutation("a step whose loss is not finite moves the parameters", "compiling/adam.py",
             "tensor.copy_(torch.where(healthy, value, tensor))", "tensor.copy_(value)", "compiling/test_adam.py"),
    Mutation("gradients of processes are summed, not averaged", "training/processes.py",
             ".to(wide) for tensor in tensors]).mul_(part)", ".to(wide) for tensor in tensors])",
             "training/test_processes.py averages"),
    Mutation("a KL ramp that begins at once", "training/schedules.py",
             "(epoch - start) / (end - start) if epoch > start else 0.0", "epoch / end", "training/test_schedules.py"),
    Mutation("a changed checkpoint is read", "whole_file.py",
             "if checksum(payload) != found:", "if False:", "training/test_checkpoint.py test_damage.py"),
    Mutation("files are written in place", "whole_file.py",
             "temporary = _beside(path)", "temporary = path", "test_whole_file.py"),
    Mutation("log q counts a delta's density", "draws/model_run.py",
             "scale_and_mask(terms, 1.0, site[\"mask\"])", "scale_and_mask(terms, 2.0, site[\"mask\"])",
             "draws/test_model_run.py"),
    Mutation("a gate's noise is shared by the batch", "noise/gate.py",
             "gates = x.new_ones(x.shape[0], 1) * self.weight", "gates = x.new_ones(1, 1) * self.weight",
             "noise/test_gate.py"),
    Mutation("a gate of negative mean passes max-pooling", "compression/absorb_gates.py",
             "bool((gate.weight >= 0).all())", "True", "compression/test_absorb_gates.py"),
    Mutation("a prediction leaves its inputs where they were", "predict.py",
             "draws(brought(batch, device), num_samples)", "draws(batch, num_samples)",
             "test_another_device.py brought"),
    Mutation("fit leaves its batches where they were", "training/epochs.py",
             "moved(processes.share(data, epoch), *modules, device=device)",
             "moved(processes.share(data, epoch))", "test_placement.py"),
    Mutation("members leave their validation data where they were", "training/evaluation.py",
             "moved(data, model, guide)", "moved(data)", "test_placement.py"),
    Mutation("a sweep leaves its batches where they were", "compression/sweep.py",
             "moved(data, model, values)", "moved(data)", "test_placement.py"),
    Mutation("fine-tuning leaves its batches where they were", "compression/fine_tune.py",
             "moved(data, net)", "moved(data)", "test_placement.py"),
    Mutation("draws leave the data where they were", "draws/runs.py",
             "return brought(some, self._device)", "return some", "test_placement.py"),
    Mutation("what has to be elsewhere is brought along", "placement.py",
             "if device is None or any(", "if device is None and any(", "test_placement.py"),
    Mutation("a buffer on another device goes unnoticed", "placement.py",
             "[*part.parameters(), *part.buffers()]", "[*part.parameters()]", "test_placement.py"),
    Mutation("bounds that moved in inference mode stay of it", "posterior/site_posteriors.py",
             "with torch.inference_mode(False):  # bounds", "with torch.enable_grad():  # bounds",
             "posterior/test_site_posteriors.py"),
    Mutation("bounds of a learned scale stay where they were made", "posterior/site_posteriors.py",
             "bound.device != like.device or bound.dtype", "bound.dtype", "test_another_device.py test_priors"),
    Mutation("the truncation of log-normal noise is forgotten", "noise/log_normal.py",
             "lower + u * width", "u", "noise/test_log_normal.py"),
    Mutation("log-normal noise is of variance one half", "noise/log_normal.py",
             "math.sqrt(2.0) * scale", "scale", "noise/test_log_normal.py"),
    Mutation("noise is drawn in the order of memory", "estimators/gaussian_tensor.py",
             "memory_format=torch.contiguous_format", "memory_format=torch.preserve_format",
             "estimators/test_gaussian_tensor.py memory"),
    Mutation("a learned hyperparameter is kept in Pyro's store", "parameters.py",
             'if msg["name"] in self._values:', "if False:", "priors/test_hyperparameter.py own"),
    Mutation("held-out data are not checked", "prototype.py",
             "held_out and is_validation_enabled()", "False", "test_target_checks.py held_out"),
    Mutation("held-out data count as data for training", "prototype.py",
             "held_out_data() if held_out else", "nullcontext() if held_out else", "test_target_checks.py held_out"),
    Mutation("a packed sequence is several inputs", "inputs.py",
             " and not is_packed(value)", "", "test_inputs.py"),
    Mutation("frozen weights are trained", "selection.py",
             "parameter.requires_grad and is_weight(", "is_weight(", "test_selection.py frozen"),
    Mutation("under autocast data are summed in half precision", "supervised.py",
             "return outputs.float() if", "return outputs if", "test_supervised.py autocast"),
    Mutation("padding has a prior's noise", "network.py",
             "if padding is None", "if True", "test_padding.py"),
    Mutation("an iterator loses its first batch", "training/start.py",
             "if isinstance(batches, Iterator):", "if False:", "training/test_start.py once"),
    Mutation("one datum passes for several", "target_checks.py",
             "x.dim() == 1 and len(x) != count", "False", "test_target_checks.py one_datum"),
    Mutation("a validation loss that is no number is the best", "training/epoch_end.py",
             "loss if math.isfinite(loss) else math.inf", "loss", "training/test_epoch_end.py"),
    Mutation("a run goes on under other settings", "training/resume.py",
             "if difference := differing_setting(", "if False and differing_setting(", "training/test_settings.py"),
    Mutation("a run goes on under other masks", "training/resume.py",
             "if not torch.equal(theirs[name].to(value), value):", "if False:", "training/test_settings.py"),
    Mutation("removed weights keep the alpha that they shared", "posterior/masked.py",
             "self.log_alpha.neg().exp().where(self.kept, 0.0)", "self.log_alpha.neg().exp()",
             "posterior/test_masked.py compression/test_restrict.py"),
    Mutation("removed weights pay the KL of a shared alpha", "posterior/masked.py",
             "of_kept.where(q.kept, kl_divergence(q.removed, p))", "of_kept", "posterior/test_masked.py"),
    Mutation("a shared tensor is read as two", "compression/sparse_file.py",
             "_share(new, {", "dict({", "compression/test_sparse_file.py"),
    Mutation("a shared alpha starts lower than it was asked to", "posterior/initial_values.py",
             "dropout_rate(alpha, loc, log_var)", "dropout_rate(alpha, loc, safe_log_var(loc, log_var))",
             "posterior/test_initial_values.py"),
]  # fmt: skip


def survives(mutation: Mutation) -> bool:
    """Whether the tests pass all the same."""
    with tempfile.TemporaryDirectory() as folder:
        for path in COPIED:
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, Path(folder, path.name))
        path = Path(folder, mutation.path)
        text = path.read_text()
        assert mutation.old in text, f"{mutation.path} holds no {mutation.old!r}: say where that is done now"
        path.write_text(text.replace(mutation.old, mutation.new, 1))
        files = [f"tests/{word}" for word in mutation.tests.split() if word.endswith(".py")]
        words = [word for word in mutation.tests.split() if not word.endswith(".py")]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
        command += ["-k", " or ".join(words)] if words else []
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutation.what}: the tests did not run\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


def main(words: list[str]) -> int:
    chosen = [m for m in MUTATIONS if not words or any(word.lower() in m.what.lower() for word in words)]
    survivors = 0
    for mutation in chosen:
        alive = survives(mutation)
        survivors += alive
        print(f"{'SURVIVED' if alive else 'caught'}: {mutation.what} ({mutation.path})", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return survivors


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
