"""The objective: its value against Pyro's own ELBO and against exact evidences, its estimators, and its place in SVI."""

import copy
import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal, AutoNormalMessenger
from pyro.nn import PyroModule, PyroSample
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.priors import GaussianUniform

HIGH = 50.0
ESTIMATORS = ["local", "weights", {"[0w]*": "weights"}]  # of the classifier, and of the model by hand


def predictor(x, w):
    """X w, also with particles in front of w."""
    return (w @ x.T).reshape(*w.shape[:-2], len(x))


def regression(x, y):
    """gamma ~ U(0, HIGH), w ~ N(0, gamma), y ~ N(x w, 0.5) in a plate of 12."""
    gamma = pyro.sample("gamma", dist.Uniform(x.new_zeros(()), HIGH).expand([3]).to_event(1))
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), gamma.sqrt()).to_event(1))
    with pyro.plate("data", 12, subsample=x):
        pyro.sample("y", dist.Normal(predictor(x, w), 0.5), obs=y)


def classifier():
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    return vbd.Classifier(net, GaussianUniform(0.0, HIGH), num_data=12)


def problem(kind):
    """A model, its guide away from the start, and its data."""
    x = torch.randn(12, 3)
    if kind == "by hand":
        model, y = regression, torch.randn(12)
        guide = vbd.VBDGuide(model, x, y)
    else:
        model, y = classifier(), torch.randint(2, (12,))
        guide = vbd.VBDGuide(model)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model, guide, (x, y)


def loss_and_gradients(elbo, model, guide, *args):
    pyro.set_rng_seed(7)
    loss = elbo.differentiable_loss(model, guide, *args)
    rest = [p for p in model.parameters() if p.requires_grad] if isinstance(model, nn.Module) else []
    return loss.detach(), torch.autograd.grad(loss, [*guide.parameters(), *rest])


def z_score(draws, expected=None):
    """Of a mean against a number, or against the mean of other draws."""
    draws = torch.as_tensor(draws, dtype=torch.float64)
    variance = draws.var() / len(draws)
    if not isinstance(expected, list):
        return float((draws.mean() - expected) / variance.sqrt())
    other = torch.as_tensor(expected, dtype=torch.float64)
    return float((draws.mean() - other.mean()) / (variance + other.var() / len(other)).sqrt())


def losses(elbo, model, guide, *args, count=300):
    return [elbo.loss(model, guide, *args) for _ in range(count)]


# --- against Pyro's ELBO -----------------------------------------------------------------------------------------------


GAMMAS = {"by hand": {"w": "gamma"}, "classifier": {"0.weight": "0.weight_gamma", "2.weight": "2.weight_gamma"}}


def explicit(guide, gammas):
    """The posterior in Pyro's own words: Normal weights, and a delta at their mean squares."""

    def statements(*_):
        for weight, site in gammas.items():
            q = guide.posteriors["q/" + weight.replace(".", "/")]
            gamma = (q.loc.square() + q.log_var.exp()).detach()
            pyro.sample(site, dist.Delta(gamma).to_event(gamma.dim()))
            pyro.sample(weight, dist.Normal(q.loc, (0.5 * q.log_var).exp()).to_event(gamma.dim()))

    return statements


@pytest.mark.parametrize("kind", ["by hand", "classifier"])
@pytest.mark.parametrize("hyperprior_constant", [False, True])
def test_equals_pyros_elbo_of_the_explicit_guide(kind, hyperprior_constant, float64):
    """Value (up to n log(b - a), or with it) and gradients, at the same draws of the weights."""
    model, guide, batch = problem(kind)
    elbo = vbd.VBD_ELBO(estimator="weights", hyperprior_constant=hyperprior_constant)
    ours, our_gradients = loss_and_gradients(elbo, model, guide, *batch)
    explicit_guide = explicit(guide, GAMMAS[kind])
    explicit_guide.parameters = guide.parameters
    theirs, their_gradients = loss_and_gradients(TraceMeanField_ELBO(), model, explicit_guide, *batch)
    count = sum(posterior.loc.numel() for posterior in guide.posteriors.values())
    constant = 0.0 if hyperprior_constant else count * math.log(HIGH)
    torch.testing.assert_close(ours + constant, theirs, rtol=1e-10, atol=0.0)
    torch.testing.assert_close(our_gradients, their_gradients, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", ["by hand", "classifier"])
def test_pyros_elbos_take_the_guide(kind, float64):
    """TraceMeanField_ELBO exactly, Trace_ELBO in expectation; neither warns."""
    model, guide, batch = problem(kind)
    elbo = vbd.VBD_ELBO(estimator="weights", hyperprior_constant=True)
    ours = loss_and_gradients(elbo, model, guide, *batch)
    theirs = loss_and_gradients(TraceMeanField_ELBO(), model, guide, *batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert abs(z_score(losses(Trace_ELBO(), model, guide, *batch), losses(elbo, model, guide, *batch))) < 4


def test_kl_of_the_papers_prior_is_the_collapsed_one(float64):
    model, guide, batch = problem("classifier")
    kl = sum(0.5 * torch.log1p((-value).exp()).sum() for value in guide.log_alpha().values())
    torch.testing.assert_close(vbd.VBD_ELBO().terms(model, guide, *batch).kl.detach(), kl)


# --- against exact evidences -------------------------------------------------------------------------------------------


class LinearRegression:
    """w ~ N(0, s^2), y ~ N(x w, noise^2): posterior, evidence and the best mean-field posterior in closed form."""

    def __init__(self, scale=0.7, noise=0.5):
        self.x = torch.randn(12, 3) @ torch.tensor([[1.0, 0.8, 0.0], [0.0, 1.0, -0.3], [0.0, 0.0, 1.0]])
        self.y = self.x @ torch.tensor([1.0, -0.5, 0.0]) + noise * torch.randn(12)
        self.scale, self.noise = scale, noise
        self.precision = torch.eye(3) / scale**2 + self.x.T @ self.x / noise**2
        self.mean = torch.linalg.solve(self.precision, self.x.T @ self.y / noise**2)
        covariance = noise**2 * torch.eye(12) + scale**2 * self.x @ self.x.T
        self.log_evidence = torch.distributions.MultivariateNormal(torch.zeros(12), covariance).log_prob(self.y)
        #: KL from the best independent Gaussian, of variances 1 / diag(precision), to the posterior.
        self.gap = 0.5 * (self.precision.diag().log().sum() - self.precision.logdet())

    def __call__(self, x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), self.scale).to_event(1))
        with pyro.plate("data", 12, subsample=x):
            pyro.sample("y", dist.Normal(predictor(x, w), self.noise), obs=y)

    def guide(self, loc, log_var):
        guide = vbd.VBDGuide(self, self.x, self.y)
        with torch.no_grad():
            guide.posteriors["q/w"].loc.copy_(loc)
            guide.posteriors["q/w"].log_var.copy_(log_var)
        return guide


@pytest.mark.parametrize("estimator", ["local", "weights"])
def test_fit_of_bayesian_linear_regression_is_exact(estimator, float64):
    """Exact means, variances 1 / diag(precision), and the bound below the evidence by the KL of that."""
    model = LinearRegression()
    guide = vbd.VBDGuide(model, model.x, model.y)
    elbo = vbd.VBD_ELBO(num_particles=40, estimator=estimator, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.995}), elbo)
    posterior, tail = guide.posteriors["q/w"], []
    for step in range(800):
        svi.step(model.x, model.y)
        if step >= 500:
            tail.append(torch.stack([posterior.loc, posterior.log_var]).detach())
    loc, log_var = torch.stack(tail).mean(0)
    assert ((loc - model.mean).abs() * model.precision.diag().sqrt() < 0.02).all()
    assert ((log_var + model.precision.diag().log()).abs() < 0.05).all()


@pytest.mark.parametrize("estimator", ["local", "weights"])
def test_bound_at_the_optimum_is_evidence_minus_gap_and_stationary(estimator, float64):
    model = LinearRegression()
    guide = model.guide(model.mean, -model.precision.diag().log())
    elbo = vbd.VBD_ELBO(estimator=estimator)
    draws = []
    for _ in range(500):
        loss = elbo.differentiable_loss(model, guide, model.x, model.y)
        draws.append(torch.cat([loss.detach()[None], *torch.autograd.grad(loss, guide.parameters())]))
    draws = torch.stack(draws)
    assert abs(z_score(draws[:, 0], float(model.gap - model.log_evidence))) < 4
    assert all(abs(z_score(column, 0.0)) < 4 for column in draws[:, 1:].T)


@pytest.mark.parametrize("shift", [0.0, 0.3, -1.0])
def test_bound_is_below_the_evidence_by_the_kl_to_the_posterior(shift, float64):
    """For any q, in closed form: KL(N(m, D) || N(mean, precision^-1))."""
    model = LinearRegression()
    loc, log_var = model.mean + shift, torch.tensor([-3.0, -1.0, -2.0])
    exact = torch.distributions.MultivariateNormal(model.mean, precision_matrix=model.precision)
    q = torch.distributions.MultivariateNormal(loc, log_var.exp().diag())
    kl = torch.distributions.kl_divergence(q, exact)
    assert kl > model.gap
    draws = losses(vbd.VBD_ELBO(), model, model.guide(loc, log_var), model.x, model.y)
    assert abs(z_score(draws, float(kl - model.log_evidence))) < 4


# --- mini-batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["by hand", "classifier"])
@pytest.mark.parametrize("sizes", [[3, 3, 3, 3], [1] * 12, [2, 7, 3]])
def test_mini_batches_average_to_the_full_batch(kind, sizes, float64):
    """Same draw of the weights; each batch counts by its size. The plate alone scales, and only the likelihood."""
    model, guide, (x, y) = problem(kind)
    elbo = vbd.VBD_ELBO(estimator="weights")

    def terms(*batch):
        pyro.set_rng_seed(5)
        return elbo.terms(model, guide, *batch)

    full = terms(x, y)
    parts = [terms(*batch) for batch in zip(x.split(sizes), y.split(sizes), strict=True)]
    mean = sum(len(b) / 12 * part.log_likelihood for b, part in zip(x.split(sizes), parts, strict=True))
    torch.testing.assert_close(mean, full.log_likelihood, rtol=1e-12, atol=0.0)
    for part in parts:
        torch.testing.assert_close(part.kl, full.kl, rtol=0.0, atol=0.0)


# --- SVI and torch's optimizers ----------------------------------------------------------------------------------------


def trained(*parts):
    return [p for part in parts if isinstance(part, nn.Module) for p in part.parameters() if p.requires_grad]


@pytest.mark.parametrize("module_local_params", [False, True])
@pytest.mark.parametrize("kind", ["by hand", "classifier"])
def test_svi_steps_along_the_gradient_of_the_module(kind, module_local_params, float64):
    """SVI with a learning rate of 1 subtracts what elbo(model, guide)().backward() leaves in .grad."""
    pyro.settings.set(module_local_params=module_local_params)
    model, guide, batch = problem(kind)
    twin_model, twin = copy.deepcopy((model, guide))
    before = [p.detach().clone() for p in trained(model, guide)]
    svi = SVI(model, guide, pyro.optim.SGD({"lr": 1.0}), vbd.VBD_ELBO())
    pyro.set_rng_seed(3)
    loss = svi.step(*batch)
    pyro.set_rng_seed(3)
    module = vbd.VBD_ELBO()(twin_model, twin)
    module(*batch).backward()
    pyro.set_rng_seed(3)
    assert loss == pytest.approx(module(*batch).item(), rel=1e-12)
    for old, new, other in zip(before, trained(model, guide), trained(twin_model, twin), strict=True):
        torch.testing.assert_close(old - new.detach(), other.grad, rtol=1e-9, atol=1e-12)
        assert other.grad.abs().sum() > 0
    assert not list(pyro.get_param_store().keys())


def test_module_of_the_elbo_has_the_parameters_of_both():
    model, guide, batch = problem("classifier")
    module = vbd.VBD_ELBO()(model, guide)
    assert {id(p) for p in module.parameters() if p.requires_grad} == {id(p) for p in trained(model, guide)}
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 0.05)
    first = module(*batch).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = module(*batch)
        loss.backward()
        optimizer.step()
    assert loss.item() < first - 1.0


@pytest.mark.parametrize("module_local_params", [False, True])
def test_two_models_of_the_same_names_both_train_and_share_nothing(module_local_params):
    """Under one optimizer of Pyro's, from the first step on, with guides that make their parameters in it."""
    pyro.settings.set(module_local_params=module_local_params)
    optim = pyro.optim.Adam({"lr": 0.1})
    x, y = torch.randn(12, 3), torch.randint(2, (12,))
    pairs = []
    for _ in range(2):
        model = classifier()
        guide = vbd.VBDGuide(lambda *batch, model=model: model(*batch))
        pairs.append((guide.model, guide, model))
        before = [p.detach().clone() for p in trained(model)]
        SVI(guide.model, guide, optim, vbd.VBD_ELBO()).step(x, y)
        assert len(trained(guide)) == 4
        for start, parameter in zip(before, trained(model), strict=True):
            torch.testing.assert_close((parameter - start).abs(), torch.full_like(start, 0.1), rtol=1e-3, atol=0.0)
    first = [p.detach().clone() for p in trained(*pairs[0][1:])]
    SVI(*pairs[1][:2], optim, vbd.VBD_ELBO()).step(x, y)
    assert all(torch.equal(a, b) for a, b in zip(first, trained(*pairs[0][1:]), strict=True))
    assert not list(pyro.get_param_store().keys())


def test_plain_parameters_of_the_users_own_pyro_modules_train():
    """Under module_local_params=True, where Pyro's own ELBOs stop at them."""
    pyro.settings.set(module_local_params=True)
    x, y = torch.randn(12, 3), torch.randn(12)

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(()))
            self.scale = pyro.nn.PyroParam(torch.tensor(1.0), dist.constraints.positive)

        def forward(self, x, y):
            w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            with pyro.plate("data", 12, subsample=x):
                pyro.sample("y", dist.Normal(x @ w + self.bias, self.scale), obs=y)

    for _ in range(2):
        model = Model()
        guide = vbd.VBDGuide(model, x, y)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), vbd.VBD_ELBO())
        before = [p.detach().clone() for p in trained(model, guide)]
        svi.step(x, y)
        for start, parameter in zip(before, trained(model, guide), strict=True):
            torch.testing.assert_close((parameter - start).abs(), torch.full_like(start, 0.1), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("module_local_params", [False, True])
@pytest.mark.parametrize("elbo", [TraceMeanField_ELBO, Trace_ELBO])
def test_pyros_elbos_train_the_guide_under_svi(elbo, module_local_params):
    pyro.settings.set(module_local_params=module_local_params)
    model, guide, batch = problem("classifier")
    before = [p.detach().clone() for p in trained(model, guide)]
    SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), elbo()).step(*batch)
    for start, parameter in zip(before, trained(model, guide), strict=True):
        assert ((parameter - start).abs() > 0.09).all()


@pytest.mark.parametrize("module_local_params", [False, True])
def test_bayesian_pyro_module_trains(module_local_params):
    """Weights stated as PyroSample, under the local estimator, with gamma at its optimum."""
    pyro.settings.set(module_local_params=module_local_params)

    class Net(PyroModule):
        def __init__(self):
            super().__init__()
            self.fc = PyroModule[nn.Linear](3, 1)
            self.fc.gamma = PyroSample(dist.Uniform(torch.tensor(0.0), HIGH).expand([1, 3]).to_event(2))
            self.fc.weight = PyroSample(lambda fc: dist.Normal(torch.zeros(()), fc.gamma.sqrt()).to_event(2))

        def forward(self, x, y):
            mean = self.fc(x).squeeze(-1)
            with pyro.plate("data", 12, subsample=x):
                pyro.sample("y", dist.Normal(mean, 0.5), obs=y)

    x = torch.randn(12, 3)
    y = x @ torch.tensor([2.0, 0.0, -1.0])
    model = Net()
    guide = vbd.VBDGuide(model, x, y)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), vbd.VBD_ELBO())
    values = [svi.step(x, y) for _ in range(100)]
    assert sum(values[-10:]) < 0.7 * sum(values[:10])
    assert list(guide.posteriors) == ["q/fc/weight"]


def test_optimizer_state_goes_by_name():
    """Ten steps in one go are five steps, a new optimizer with the state of the old one, and five more."""
    model, guide, batch = problem("classifier")
    pyro.settings.set(module_local_params=True)
    state = copy.deepcopy((model.state_dict(), guide.state_dict()))

    def run(optim, steps):
        svi = SVI(model, guide, optim, vbd.VBD_ELBO())
        for step in steps:
            pyro.set_rng_seed(step)
            svi.step(*batch)
        return optim, [p.detach().clone() for p in trained(model, guide)]

    _, expected = run(pyro.optim.Adam({"lr": 0.05}), range(10))
    model.load_state_dict(state[0])
    guide.load_state_dict(state[1])
    old, _ = run(pyro.optim.Adam({"lr": 0.05}), range(5))
    saved = copy.deepcopy(old.get_state())
    names = {f"{guide.name}.{site}.{n}" for site in ("0.weight", "2.weight") for n in ("loc", "log_var")}
    assert names < set(saved)
    assert len(saved) == 6
    new = pyro.optim.Adam({"lr": 0.05})
    new.set_state(saved)
    _, found = run(new, range(5, 10))
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)


def test_optimizer_arguments_go_by_name():
    model, guide, batch = problem("classifier")
    before = [(n, p.detach().clone()) for n, p in guide.named_parameters()]
    optim = pyro.optim.Adam(lambda name: {"lr": 0.0 if name.endswith("0.weight.log_var") else 0.1})
    SVI(model, guide, optim, vbd.VBD_ELBO()).step(*batch)
    still = [n for (n, old), new in zip(before, guide.parameters(), strict=True) if torch.equal(old, new)]
    assert still == ["posteriors.q/0/weight.log_var"]


def test_guides_in_one_process_share_no_parameter(device):
    """Two guides of one model, under one optimizer and one store."""
    model, first, batch = problem("by hand")
    second = vbd.VBDGuide(model, *batch)
    optim = pyro.optim.Adam({"lr": 0.1})
    for guide in (first, second):
        SVI(model, guide, optim, vbd.VBD_ELBO()).step(*batch)
    assert len(optim.get_state()) == 4
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


def test_gradients_add_up_until_they_are_zeroed():
    model, guide, batch = problem("by hand")
    grads = []
    for _ in range(2):
        pyro.set_rng_seed(1)
        assert isinstance(vbd.VBD_ELBO().loss_and_grads(model, guide, *batch), float)
        grads.append([p.grad.clone() for p in guide.parameters()])
    torch.testing.assert_close(grads[1], [2 * g for g in grads[0]])


# --- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", ["by hand", "classifier"])
def test_vectorized_particles_have_the_loops_expectation(kind, estimator):
    model, guide, batch = problem(kind)
    loop = vbd.VBD_ELBO(estimator=estimator, num_particles=4)
    vectorized = vbd.VBD_ELBO(estimator=estimator, num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    ours, theirs = (losses(elbo, model, guide, *batch, count=100) for elbo in (vectorized, loop))
    assert abs(z_score(ours, theirs)) < 4
    ratio = torch.tensor(ours).var() / torch.tensor(theirs).var()
    assert abs(float(ratio.log())) < 4 * math.sqrt(4 / 99)  # particles of one run are independent draws
    a, b = (elbo.terms(model, guide, *batch) for elbo in (vectorized, loop))
    torch.testing.assert_close(a.kl, b.kl)


def test_local_and_weights_estimate_the_same(float64):
    model, guide, batch = problem("classifier")
    local, weights = (losses(vbd.VBD_ELBO(estimator=e), model, guide, *batch, count=600) for e in ("local", "weights"))
    assert abs(z_score(local, weights)) < 4


def test_particles_are_averaged(float64):
    """Five particles are the mean of five runs of one; the variance falls by five."""
    model, guide, batch = problem("by hand")
    pyro.set_rng_seed(2)
    together = vbd.VBD_ELBO(num_particles=5).loss(model, guide, *batch)
    pyro.set_rng_seed(2)
    apart = losses(vbd.VBD_ELBO(), model, guide, *batch, count=5)
    assert together == pytest.approx(sum(apart) / 5, rel=1e-12)


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("vectorize_particles", [False, True])
def test_terms_are_those_of_the_loss(num_particles, vectorize_particles, float64):
    model, guide, batch = problem("classifier")
    elbo = vbd.VBD_ELBO(
        0.3, num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=1, hyperprior_constant=True
    )
    pyro.set_rng_seed(4)
    loss = elbo.loss(model, guide, *batch)
    pyro.set_rng_seed(4)
    terms = elbo.terms(model, guide, *batch)
    assert (terms.log_likelihood - 0.3 * terms.kl).item() == pytest.approx(-loss, rel=1e-12)
    assert set(terms.kl_by_site) == {"0.weight", "0.weight_gamma", "2.weight", "2.weight_gamma"}
    torch.testing.assert_close(terms.kl, sum(terms.kl_by_site.values()))
    torch.testing.assert_close(terms.kl_by_site["2.weight_gamma"], torch.tensor(10 * math.log(HIGH)))


def test_kl_weight_may_change_between_steps(float64):
    model, guide, batch = problem("by hand")
    elbo = vbd.VBD_ELBO()
    module = elbo(model, guide)
    found = {}
    for weight in (1.0, 0.0, 0.25):
        elbo.kl_weight = weight
        pyro.set_rng_seed(4)
        found[weight] = module(*batch).item()
        pyro.set_rng_seed(4)
        assert SVI(model, guide, pyro.optim.SGD({"lr": 0.0}), elbo).evaluate_loss(*batch) == pytest.approx(found[weight])
    kl = elbo.terms(model, guide, *batch).kl.item()
    assert found[1.0] - found[0.0] == pytest.approx(kl, rel=1e-10)
    assert found[0.25] - found[0.0] == pytest.approx(0.25 * kl, rel=1e-10)


def test_a_sites_kl_has_a_factor_of_its_own(float64):
    """The first pattern that matches counts, beside kl_weight."""
    model, guide, batch = problem("classifier")
    elbo = vbd.VBD_ELBO(0.5, site_weights={"0.*": 3.0, "*.weight": 7.0})
    terms = elbo.terms(model, guide, *batch)
    expected = terms.log_likelihood - 0.5 * (3.0 * terms.kl_by_site["0.weight"] + 7.0 * terms.kl_by_site["2.weight"])
    torch.testing.assert_close(terms.elbo, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(terms.kl, terms.kl_by_site["0.weight"] + terms.kl_by_site["2.weight"])
    pyro.set_rng_seed(4)
    loss = elbo.loss(model, guide, *batch)
    pyro.set_rng_seed(4)
    assert -elbo.terms(model, guide, *batch).elbo.item() == pytest.approx(loss)


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_bad_site_weight_is_refused(weight):
    with pytest.raises(ValueError, match=r"0\.weight=.* is no weight of a KL: use a number >= 0"):
        vbd.VBD_ELBO(site_weights={"0.weight": weight})


@pytest.mark.parametrize(
    ("setting", "patterns", "lost"),
    [
        ("site_weights", {"0.*": 3.0, "1.weight": 7.0}, r"\['1\.weight'\]"),
        ("estimator", {"*.bias": "weights", "3.*": "local"}, r"\['\*\.bias', '3\.\*'\]"),
    ],
)
def test_a_pattern_that_matches_no_site_is_refused(setting, patterns, lost):
    """At every call, through every door, and whatever other model the ELBO has served."""
    model, guide, batch = problem("classifier")
    elbo = vbd.VBD_ELBO(**{setting: patterns})
    for call in (elbo.loss, elbo.terms, elbo.loss_and_grads, elbo.report_and_grads):
        with pytest.raises(ValueError, match=rf"{setting} has the patterns {lost}, which match none of the sites \['0"):
            call(model, guide, *batch)
    with pytest.raises(ValueError, match=setting):
        vbd.compile(elbo(model, guide))(*batch)


def test_a_pattern_may_be_of_a_site_that_adds_no_kl():
    """A gamma under a uniform hyperprior, say; and an ELBO serves models with other sites."""
    elbo = vbd.VBD_ELBO(site_weights={"*gamma": 2.0}, estimator={"*w*": "weights"})
    for kind in ("classifier", "by hand", "classifier"):
        model, guide, batch = problem(kind)
        elbo.loss(model, guide, *batch)


def test_an_estimator_assigned_later_counts():
    model, guide, batch = problem("classifier")
    elbo, other = vbd.VBD_ELBO(), vbd.VBD_ELBO(estimator="weights")
    elbo.estimator = "weights"
    found, expected = (loss_and_gradients(each, model, guide, *batch)[0] for each in (elbo, other))
    assert torch.equal(found, expected)
    elbo.estimator = "wieghts"
    with pytest.raises(ValueError, match="'wieghts' is unknown"):
        elbo.loss(model, guide, *batch)


def test_a_sites_estimator_goes_by_its_name(float64):
    """A weight that is sampled itself has the same value for every datum."""
    seen = []

    def model(x):
        a, b = (pyro.sample(site, dist.Normal(torch.zeros(3), 1.0).to_event(1)) for site in ("a.w", "b.w"))
        seen.append((x @ a, x @ b))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(seen[-1][0] + seen[-1][1], 1.0), obs=torch.zeros(len(x)))

    x = torch.randn(1, 3).expand(6, 3)
    guide = vbd.VBDGuide(model, x)
    for estimator, distinct in {"local": (6, 6), "weights": (1, 1), "mixed": (1, 6)}.items():
        seen.clear()
        vbd.VBD_ELBO(estimator={"a.*": "weights"} if estimator == "mixed" else estimator).loss(model, guide, x)
        assert tuple(len(value.detach().round(decimals=12).unique()) for value in seen[-1]) == distinct


@pytest.mark.parametrize("estimator", ["Flipout", "Local", {"*": "both"}])
def test_unknown_estimator_is_refused(estimator):
    with pytest.raises(ValueError, match="use 'auto', 'local', 'flipout' or 'weights'"):
        vbd.VBD_ELBO(estimator=estimator)


def test_a_kl_weight_of_zero_leaves_the_likelihood():
    assert vbd.VBD_ELBO(kl_weight=0.0, site_weights={"*": 0}).kl_weight == 0.0


@pytest.mark.parametrize("kl_weight", [-0.1, math.inf, math.nan])
def test_bad_kl_weight_is_refused(kl_weight):
    with pytest.raises(ValueError, match="is no weight of a KL: use a number >= 0"):
        vbd.VBD_ELBO(kl_weight=kl_weight)


def test_no_particles_are_refused():
    with pytest.raises(ValueError, match="leaves nothing to average"):
        vbd.VBD_ELBO(num_particles=0)


# --- what does not fit together ----------------------------------------------------------------------------------------


def test_guide_of_another_model_is_refused():
    _, guide, batch = problem("classifier")
    for call in ("loss", "terms", "differentiable_loss", "loss_and_grads"):
        with pytest.raises(ValueError, match="was made for another model"):
            getattr(vbd.VBD_ELBO(), call)(classifier(), guide, *batch)
    with pytest.raises(ValueError, match="was made for another model"):
        vbd.VBD_ELBO()(classifier(), guide)(*batch)


def test_handlers_around_the_same_model_are_accepted(float64):
    model, guide, batch = problem("classifier")
    pyro.set_rng_seed(1)
    plain = vbd.VBD_ELBO().terms(model, guide, *batch)
    pyro.set_rng_seed(1)
    scaled = vbd.VBD_ELBO().terms(poutine.scale(model, scale=0.5), poutine.scale(guide, scale=0.5), *batch)
    torch.testing.assert_close(scaled.elbo, 0.5 * plain.elbo)
    pyro.set_rng_seed(1)
    masked = vbd.VBD_ELBO().terms(poutine.mask(model, mask=False), poutine.mask(guide, mask=False), *batch)
    assert masked.elbo == 0.0


def test_handler_around_one_side_is_refused():
    """It would act on half of the KL, or on none of it."""
    model, guide, batch = problem("classifier")
    scaled = poutine.scale(model, scale=0.1), poutine.scale(guide, scale=0.1)
    for pair in ((scaled[0], guide), (model, scaled[1])):
        with pytest.raises(ValueError, match="put the handler around both, or use VBD_ELBO"):
            vbd.VBD_ELBO().loss(*pair, *batch)


def test_weight_that_is_never_read_is_refused_by_name():
    """By its site; with the weights themselves sampled it is no error."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.used(x)

    lifted = vbd.lift(Net(), GaussianUniform())

    def model(x):
        out = lifted(x)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(out, 1.0).to_event(1), obs=torch.zeros(len(x), 2))

    guide = vbd.VBDGuide(model, torch.randn(4, 3))
    with pytest.raises(RuntimeError, match=r"never read \['idle.weight'\]"):
        vbd.VBD_ELBO().loss(model, guide, torch.randn(4, 3))
    assert math.isfinite(vbd.VBD_ELBO(estimator="weights").loss(model, guide, torch.randn(4, 3)))


def test_latent_that_the_guide_does_not_know_is_refused_by_name():
    def model(more=False):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        late = pyro.sample("late", dist.Normal(0.0, 1.0)) if more else 0.0
        pyro.sample("y", dist.Normal(w.sum() + late, 1.0), obs=torch.tensor(0.0))

    guide = vbd.VBDGuide(model)
    guide()
    with pytest.raises(ValueError, match=r"\['late'\], which the guide does not know"):
        vbd.VBD_ELBO().loss(model, guide, more=True)


# --- other guides ------------------------------------------------------------------------------------------------------


def rates():
    """A constrained latent, a real one and a delta's worth of data."""
    rate = pyro.sample("rate", dist.Gamma(torch.tensor(3.0), 2.0))
    shift = pyro.sample("shift", dist.Normal(torch.tensor(1.0), 1.0))
    with pyro.plate("data", 4):
        pyro.sample("y", dist.Normal(shift, rate), obs=torch.tensor([0.5, 1.0, 2.0, -1.0]))


@pytest.mark.parametrize("autoguide", [AutoNormal, AutoDiagonalNormal, AutoDelta, AutoNormalMessenger])
def test_pyros_guides_keep_their_jacobian(autoguide, float64):
    """The same as Trace_ELBO at every draw. TraceMeanField_ELBO drops the Jacobian of AutoNormal's Delta on the Gamma."""
    guide = autoguide(rates)
    guide()
    for seed in range(5):
        found = []
        for elbo in (vbd.VBD_ELBO(), Trace_ELBO()):
            pyro.set_rng_seed(seed)
            loss = elbo.differentiable_loss(rates, guide)
            leaves = [pyro.param(name).unconstrained() for name in sorted(pyro.get_param_store())]
            found.append((loss.detach(), torch.autograd.grad(loss, leaves)))
        torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)


def test_pyros_guide_trains():
    guide = AutoNormal(rates)
    elbo = vbd.VBD_ELBO(num_particles=10, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(rates, guide, pyro.optim.Adam({"lr": 0.05}), elbo)
    values = [svi.step() for _ in range(150)]
    assert sum(values[-20:]) < sum(values[:20]) - 20 * 0.5


def test_plain_function_guide_is_in_closed_form(float64):
    """Normal against Normal: the loss of TraceMeanField_ELBO, gradients included."""
    model = LinearRegression()

    def guide(*_):
        loc = pyro.param("loc", torch.tensor([0.5, 0.0, -0.5]))
        scale = pyro.param("scale", torch.tensor([0.3, 0.2, 0.1]), constraint=dist.constraints.positive)
        pyro.sample("w", dist.Normal(loc, scale).to_event(1))

    found = []
    for elbo in (vbd.VBD_ELBO(), TraceMeanField_ELBO()):
        pyro.set_rng_seed(1)
        loss = elbo.differentiable_loss(model, guide, model.x, model.y)
        leaves = [pyro.param(name).unconstrained() for name in ("loc", "scale")]
        found.append((loss.detach(), torch.autograd.grad(loss, leaves)))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)
