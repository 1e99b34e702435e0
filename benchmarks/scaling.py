"""What an epoch and a sweep on BraTS 2021 would cost on GPUs: estimates, from published throughput.

    python benchmarks/scaling.py [--price 1.84] [--patients 1251] [--ratio 2.7]

Prints the tables of docs/scaling.md. Nothing here is measured on a GPU: floating-point operations
are counted, the rate at which a GPU does them is taken from a published 3-D training benchmark.
"""

import argparse
from collections.abc import Callable

import torch
from monai.networks.nets import DynUNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from glioma_xai.models.networks import SmallCNN, densenet, resnet

SHAPE = (4, 96, 112, 80)  # modalities and voxels of 2 mm
MODELS: dict[str, Callable[[], nn.Module]] = {
    "small_cnn": lambda: SmallCNN(input_shape=SHAPE, classes=2),
    "resnet10": lambda: resnet(input_shape=SHAPE, classes=2, depth=10),
    "resnet18": lambda: resnet(input_shape=SHAPE, classes=2, depth=18),
    "resnet34": lambda: resnet(input_shape=SHAPE, classes=2, depth=34),
    "densenet121": lambda: densenet(input_shape=SHAPE, classes=2, blocks=[6, 12, 24, 16]),
}
# NVIDIA DeepLearningExamples, nnU-Net for PyTorch, DGX A100 80 GB: volumes of 128^3 a second, 3-D
# U-Net, one GPU; batch 4 and 1 in mixed precision, batch 2 in TF32; 8 GPUs are 7.80 times one
MIXED, MIXED_ONE, TF32, EIGHT = 9.52, 4.24, 5.21, 7.80
MEBI_A_VOLUME = 12.04  # float16, 4 modalities and 3 masks, as the cache keeps them (MB)
AUGMENTATION = 0.12  # seconds of one core a volume, measured


def forward_flops(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[float, int]:
    """Operations of a forward pass of one volume, and number of parameters; computes nothing."""
    with torch.device("meta"):
        model = build()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, *shape))
    return float(counter.get_total_flops()), sum(p.numel() for p in model.parameters())


def unet() -> nn.Module:
    """nnU-Net's 3-D network for BraTS."""
    filters = [32, 64, 128, 256, 320, 320]
    return DynUNet(3, 4, 4, [3] * 6, [1, *[2] * 5], [2] * 5, filters=filters, norm_name="instance")


def seconds_a_volume(flops: float, rates: tuple[float, float], ratio: float) -> dict[str, float]:
    """Plain and guided training, and validation with relevance and exchanged background."""
    mixed, single = (3 * flops / rate for rate in rates)  # backward costs two forward passes
    return {
        "plain": mixed,
        "guided": mixed + ratio * single,  # relevance in float32, on mixed backgrounds
        "validation": 4 * flops / rates[1],
    }


def epoch_table(times: dict[str, float], parameters: int, options: argparse.Namespace) -> None:
    """Time, money, data and communication of one epoch, by number of GPUs."""
    train, validation = round(0.65 * options.patients), round(0.15 * options.patients)
    print("| GPUs | step | batch | steps | epoch, s | GPU-h | $ | data, GB/s | cores a GPU |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for gpus in (1, 8, 64):
        size, slower = (4, 1.0) if gpus < 64 else (1, MIXED / MIXED_ONE)
        efficiency = 1.0 if gpus == 1 else EIGHT / 8
        steps = train // (gpus * size) + (train % (gpus * size) >= gpus)
        for kind in ("plain", "guided"):
            volume = times[kind] * slower / efficiency
            checked = -(-validation // gpus) * times["validation"] * slower / efficiency
            seconds = steps * size * volume + checked
            hours = seconds * gpus / 3600
            print(
                f"| {gpus} | {kind} | {gpus} x {size} | {steps} | {seconds:.1f} | {hours:.3f} | "
                f"{hours * options.price:.3f} | {MEBI_A_VOLUME * gpus / volume / 1e3:.2f} | "
                f"{AUGMENTATION / volume:.1f} |"
            )
    print(f"all-reduce: {2 * 4 * parameters / 1e6:.0f} MB a GPU and step")


def sweep_table(
    all_times: dict[str, dict[str, float]], parameters: dict[str, int], options: argparse.Namespace
) -> None:
    """The sweep of a paper: 5 models x 6 rules x 5 weights (one of them 0) x 5 folds."""
    train, validation, test = (round(s * options.patients) for s in (0.64, 0.16, 0.2))
    hours = {"plain": 0.0, "guided": 0.0}
    for times in all_times.values():
        checked = validation * times["validation"]
        evaluation = 12 * (validation + test) * times["validation"]  # conditions of the report
        for kind in hours:
            epoch = train * times[kind] + checked
            hours[kind] += (options.epochs * epoch + evaluation) / 3600 / len(all_times)
    print("| runs | of them plain | GPU-h | $ | days on 1, 8, 64 GPUs | disk, GB |")
    print("| --- | --- | --- | --- | --- | --- |")
    mean = sum(parameters.values()) / len(parameters)
    for runs, plain in ((750, 150), (625, 25), (265, 25)):
        total = plain * hours["plain"] + (runs - plain) * hours["guided"]
        days = ", ".join(f"{total / 24 / gpus:.1f}" for gpus in (1, 8, 64))
        money = total * options.price
        disk = runs * 2 * 12 * mean / 1e9  # best and last: weights and two moments of Adam
        print(f"| {runs} | {plain} | {total:.0f} | {money:.0f} | {days} | {disk:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--price", type=float, default=1.84, help="dollars an hour of one GPU")
    parser.add_argument("--patients", type=int, default=1251)
    parser.add_argument("--ratio", type=float, default=2.7, help="relevance step by plain step")
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    reference, _ = forward_flops(unet, (4, 128, 128, 128))
    rates = (3 * reference * MIXED, 3 * reference * TF32)
    print(f"rates: {rates[0] / 1e12:.1f} TFLOP/s mixed, {rates[1] / 1e12:.1f} TF32\n")
    print("| model | parameters, M | GFLOP forward | plain, ms | guided, ms |")
    print("| --- | --- | --- | --- | --- |")
    times, parameters = {}, {}
    for name, build in MODELS.items():
        flops, parameters[name] = forward_flops(build, SHAPE)
        times[name] = seconds_a_volume(flops, rates, options.ratio)
        plain, guided = (1e3 * times[name][kind] for kind in ("plain", "guided"))
        print(
            f"| {name} | {parameters[name] / 1e6:.1f} | {flops / 1e9:.0f} | {plain:.0f} | "
            f"{guided:.0f} |"
        )
    print()
    epoch_table(times["resnet10"], parameters["resnet10"], options)
    print()
    sweep_table(times, parameters, options)


if __name__ == "__main__":
    main()
