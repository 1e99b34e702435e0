"""Slow versions of the metrics, written from their definitions with Python loops."""

import math


def pixels(relevance, lesion_mask, brain_mask=None):
    """List of (channel values, in lesion) of the counted pixels of one sample, numpy arrays."""
    channels = relevance.reshape(len(relevance), -1).T.tolist()
    mask = lesion_mask.reshape(-1).tolist()
    brain = [1.0] * len(mask) if brain_mask is None else brain_mask.reshape(-1).tolist()
    return [
        (values, inside == 1)
        for values, inside, in_brain in zip(channels, mask, brain, strict=True)
        if not math.isnan(inside) and in_brain == 1
    ]


def is_defined(counted, relevance):
    finite = all(math.isfinite(value) for value in relevance.reshape(-1).tolist())
    lesion = any(inside for _, inside in counted)
    positive = any(value > 0 for values, _ in counted for value in values)
    return finite and lesion and positive


def mass(counted, of):
    inside = sum(of(value) for values, lesion in counted if lesion for value in values)
    return inside / sum(of(value) for values, _ in counted for value in values)


def rank(counted, permutations):
    """Mean over random orders of the ties: what a rank accuracy is on average."""
    size = sum(lesion for _, lesion in counted)
    total = 0.0
    for order in permutations:
        ranked = sorted((counted[i] for i in order), key=lambda pixel: -sum(pixel[0]))
        total += sum(lesion for _, lesion in ranked[:size]) / size
    return total / len(permutations)


def pointing(counted):
    highest = max(sum(values) for values, _ in counted)
    winners = [lesion for values, lesion in counted if sum(values) == highest]
    return sum(winners) / len(winners)


def focus(counted):
    def mean_positive(of_lesion):
        chosen = [values for values, lesion in counted if lesion == of_lesion]
        return sum(max(v, 0.0) for values in chosen for v in values) / len(chosen)

    tumour, rest = mean_positive(True), mean_positive(False)
    return tumour / (tumour + rest)


def overlap(counted, threshold):
    highest = max(sum(values) for values, _ in counted)
    chosen = [sum(values) >= threshold * highest for values, _ in counted]
    lesions = [lesion for _, lesion in counted]
    both = sum(a and b for a, b in zip(chosen, lesions, strict=True))
    either = sum(a or b for a, b in zip(chosen, lesions, strict=True))
    return both / either


def kernel(case, control):
    return 1.0 if case > control else 0.5 if case == control else 0.0


def delong(scores_by_model, labels):
    """Areas and covariance from the structural components, by DeLong's equations 4 to 7."""
    areas, of_cases, of_controls = [], [], []
    for scores in scores_by_model:
        cases = [s for s, y in zip(scores, labels, strict=True) if y == 1]
        controls = [s for s, y in zip(scores, labels, strict=True) if y == 0]
        of_cases.append([sum(kernel(x, y) for y in controls) / len(controls) for x in cases])
        of_controls.append([sum(kernel(x, y) for x in cases) / len(cases) for y in controls])
        areas.append(sum(of_cases[-1]) / len(cases))

    def covariance(left, right, area_left, area_right):
        terms = [(a - area_left) * (b - area_right) for a, b in zip(left, right, strict=True)]
        return sum(terms) / (len(terms) - 1) / len(terms)

    models = range(len(areas))
    matrix = [
        [
            covariance(of_cases[i], of_cases[j], areas[i], areas[j])
            + covariance(of_controls[i], of_controls[j], areas[i], areas[j])
            for j in models
        ]
        for i in models
    ]
    return areas, matrix
