// The Python module lrpfast._core: checks every array, releases the GIL, calls the table. No arithmetic here.
#include <pybind11/stl.h>

#include <array>
#include <limits>
#include <utility>

#include "checks.hpp"
#include "dispatch.hpp"
#include "kernels.hpp"
#include "threads.hpp"

namespace lrpfast {
namespace {

using PartArgument = std::pair<double, double>;
using TripleArgument = std::array<Size, 3>;

/// One kernel in the tables.
template <template <class> class Arguments>
struct Entry {
    using F32 = void (*)(const Arguments<float>&);
    using F64 = void (*)(const Arguments<double>&);
    const char* name;
    F32 Table<float>::* f32;
    F64 Table<double>::* f64;

    bool is_forward() const {
        const std::string suffix = "_forward", whole = name;
        return whole.size() > suffix.size() &&
               whole.compare(whole.size() - suffix.size(), suffix.size(), suffix) == 0;
    }
    void call(const Arguments<float>& arguments) const { (active_kernels().f32.*f32)(arguments); }
    void call(const Arguments<double>& arguments) const { (active_kernels().f64.*f64)(arguments); }

    /// Make the arguments for the dtype of `leader`, then run without the GIL.
    template <class Make>
    void run(const Checker& check, const char* leader, py::handle value, const Make& make) const {
        const py::dtype dtype = check.array(leader, value).dtype();
        if (dtype.equal(py::dtype::of<float>())) {
            const Arguments<float> arguments = make(float{});
            const py::gil_scoped_release release;
            call(arguments);
        } else if (dtype.equal(py::dtype::of<double>())) {
            const Arguments<double> arguments = make(double{});
            const py::gil_scoped_release release;
            call(arguments);
        } else {
            throw py::type_error(std::string(name) + ": " + leader + " has dtype " +
                                 std::string(py::str(dtype)) + ", expected float32 or float64");
        }
    }
};

template <class T>
Part<T> part(const PartArgument& argument) {
    return {static_cast<T>(argument.first), static_cast<T>(argument.second)};
}

/// What the kernels of linear operators have in common, as Python handed it over.
struct LinearArguments {
    py::handle src, w;
    PartArgument src_part, w_part;
    py::handle bias, times;
    PartArgument times_part;
    py::handle out;
    bool accumulate;

    template <class T>
    void fill(const Checker& check, Linear<T>& to, const Shape& src_shape, const Shape& w_shape,
              const Shape& out_shape) const {
        to.src = check.data<T>("src", src, src_shape);
        to.w = check.data<T>("w", w, w_shape);
        to.bias = check.optional<T>("bias", bias, {out_shape[1]});
        to.times = check.optional<T>("times", times, out_shape);
        to.out = check.writable<T>("out", out, out_shape);
        check.apart("out", out, "src", src);
        check.apart("out", out, "w", w);
        check.apart("out", out, "bias", bias);
        check.apart("out", out, "times", times, true);
        to.src_part = part<T>(src_part);
        to.w_part = part<T>(w_part);
        to.times_part = part<T>(times_part);
        to.accumulate = accumulate;
    }
};

Triple triple(const Checker& check, const char* name, const TripleArgument& values, Size least) {
    for (Size value : values)
        check.require(value >= least && value <= std::numeric_limits<std::int32_t>::max(),
                      std::string(name) + " is " + text(Shape(values.begin(), values.end())) +
                          ", expected three numbers of at least " + std::to_string(least));
    return {{values[0], values[1], values[2]}};
}

Triple last_three(const Shape& shape) { return {{shape[2], shape[3], shape[4]}}; }

Windows windows(const Checker& check, const Shape& x, const Shape& z, const Triple& kernel,
                const TripleArgument& strides, const TripleArgument& pads, const TripleArgument& dilations) {
    return {last_three(x),
            last_three(z),
            kernel,
            triple(check, "strides", strides, 1),
            triple(check, "pads", pads, 0),
            triple(check, "dilations", dilations, 1)};
}

void same_samples(const Checker& check, const Shape& src, const Shape& out, std::size_t axes) {
    for (std::size_t axis = 0; axis < axes; ++axis)
        check.require(src[axis] == out[axis], "src has shape " + text(src) + " and out " + text(out) +
                                                  ", which differ in axis " + std::to_string(axis));
}

const char* const kPlanesAxes = "(n, channels, depth, height, width)";

void bind(py::module_& module, Entry<Gemm> entry) {
    module.def(
        entry.name,
        [entry](py::handle src, py::handle w, PartArgument src_part, PartArgument w_part, py::handle bias,
                py::handle times, PartArgument times_part, py::handle out, bool accumulate) {
            const Checker check(entry.name);
            const LinearArguments linear{src, w, src_part, w_part, bias, times, times_part, out, accumulate};
            const Shape of_src = check.shape("src", src, 2, entry.is_forward() ? "(n, k)" : "(n, m)");
            const Shape of_w = check.shape("w", w, 2, "(m, k)");
            const Size m = of_w[0], k = of_w[1], n = of_src[0];
            check.require(m > 0, "w has no rows");
            const Shape x{n, k}, z{n, m};
            entry.run(check, "src", src, [&](auto kind) {
                Gemm<decltype(kind)> arguments{};
                linear.fill(check, arguments, entry.is_forward() ? x : z, of_w, entry.is_forward() ? z : x);
                arguments.n = n, arguments.m = m, arguments.k = k;
                return arguments;
            });
        },
        py::arg("src"), py::arg("w"), py::arg("src_part"), py::arg("w_part"), py::arg("bias"),
        py::arg("times"), py::arg("times_part"), py::arg("out"), py::arg("accumulate"));
}

void bind(py::module_& module, Entry<Conv> entry) {
    module.def(
        entry.name,
        [entry](py::handle src, py::handle w, TripleArgument strides, TripleArgument pads,
                TripleArgument dilations, Size groups, PartArgument src_part, PartArgument w_part,
                py::handle bias, py::handle times, PartArgument times_part, py::handle out, bool accumulate) {
            const Checker check(entry.name);
            const LinearArguments linear{src, w, src_part, w_part, bias, times, times_part, out, accumulate};
            const Shape of_src = check.shape("src", src, 5, kPlanesAxes),
                        of_out = check.shape("out", out, 5, kPlanesAxes);
            const Shape of_w = check.shape("w", w, 5, "(m, c / groups, kd, kh, kw)");
            same_samples(check, of_src, of_out, 1);
            const Shape &x = entry.is_forward() ? of_src : of_out, &z = entry.is_forward() ? of_out : of_src;
            check.require(groups >= 1 && of_w[0] > 0 && of_w[0] % groups == 0,
                          "groups is " + std::to_string(groups) + ", which does not divide w's " +
                              std::to_string(of_w[0]) + " filters");
            check.require(z[1] == of_w[0] && x[1] == of_w[1] * groups,
                          "w has shape " + text(of_w) + " in " + std::to_string(groups) +
                              " groups, which does not lead from " + std::to_string(x[1]) + " to " +
                              std::to_string(z[1]) + " channels");
            const Windows geometry = windows(check, x, z, last_three(of_w), strides, pads, dilations);
            entry.run(check, "src", src, [&](auto kind) {
                Conv<decltype(kind)> arguments{};
                linear.fill(check, arguments, of_src, of_w, of_out);
                arguments.windows = geometry;
                arguments.n = x[0], arguments.m = z[1], arguments.c = x[1], arguments.groups = groups;
                return arguments;
            });
        },
        py::arg("src"), py::arg("w"), py::arg("strides"), py::arg("pads"), py::arg("dilations"),
        py::arg("groups"), py::arg("src_part"), py::arg("w_part"), py::arg("bias"), py::arg("times"),
        py::arg("times_part"), py::arg("out"), py::arg("accumulate"));
}

void bind(py::module_& module, Entry<Depthwise> entry) {
    module.def(
        entry.name,
        [entry](py::handle src, py::handle w, TripleArgument strides, TripleArgument pads,
                TripleArgument dilations, PartArgument src_part, PartArgument w_part, py::handle bias,
                py::handle times, PartArgument times_part, py::handle out, bool accumulate) {
            const Checker check(entry.name);
            const LinearArguments linear{src, w, src_part, w_part, bias, times, times_part, out, accumulate};
            const Shape of_src = check.shape("src", src, 5, kPlanesAxes),
                        of_out = check.shape("out", out, 5, kPlanesAxes);
            const Shape of_w = check.shape("w", w, 5, "(c, 1, kd, kh, kw)");
            same_samples(check, of_src, of_out, 2);
            const Shape &x = entry.is_forward() ? of_src : of_out, &z = entry.is_forward() ? of_out : of_src;
            const Windows geometry = windows(check, x, z, last_three(of_w), strides, pads, dilations);
            entry.run(check, "src", src, [&](auto kind) {
                Depthwise<decltype(kind)> arguments{};
                linear.fill(check, arguments, of_src, {x[1], 1, of_w[2], of_w[3], of_w[4]}, of_out);
                arguments.windows = geometry;
                arguments.n = x[0], arguments.c = x[1];
                return arguments;
            });
        },
        py::arg("src"), py::arg("w"), py::arg("strides"), py::arg("pads"), py::arg("dilations"),
        py::arg("src_part"), py::arg("w_part"), py::arg("bias"), py::arg("times"), py::arg("times_part"),
        py::arg("out"), py::arg("accumulate"));
}

void bind(py::module_& module, Entry<SumPool> entry) {
    module.def(
        entry.name,
        [entry](py::handle src, py::handle w, TripleArgument window, TripleArgument strides,
                TripleArgument pads, TripleArgument dilations, PartArgument src_part, PartArgument w_part,
                py::handle bias, py::handle times, PartArgument times_part, py::handle out, bool accumulate) {
            const Checker check(entry.name);
            const LinearArguments linear{src, w, src_part, w_part, bias, times, times_part, out, accumulate};
            const Shape of_src = check.shape("src", src, 5, kPlanesAxes),
                        of_out = check.shape("out", out, 5, kPlanesAxes);
            same_samples(check, of_src, of_out, 2);
            const Shape &x = entry.is_forward() ? of_src : of_out, &z = entry.is_forward() ? of_out : of_src;
            const Windows geometry =
                windows(check, x, z, triple(check, "window", window, 1), strides, pads, dilations);
            entry.run(check, "src", src, [&](auto kind) {
                SumPool<decltype(kind)> arguments{};
                linear.fill(check, arguments, of_src, {z[2], z[3], z[4]}, of_out);
                arguments.windows = geometry;
                arguments.n = x[0], arguments.c = x[1];
                return arguments;
            });
        },
        py::arg("src"), py::arg("w"), py::arg("window"), py::arg("strides"), py::arg("pads"),
        py::arg("dilations"), py::arg("src_part"), py::arg("w_part"), py::arg("bias"), py::arg("times"),
        py::arg("times_part"), py::arg("out"), py::arg("accumulate"));
}

void bind(py::module_& module, Entry<MaxPool> entry) {
    module.def(
        entry.name,
        [entry](py::handle src, TripleArgument window, TripleArgument strides, TripleArgument pads,
                TripleArgument dilations, py::handle out, py::handle winners) {
            const Checker check(entry.name);
            const Shape x = check.shape("src", src, 5, kPlanesAxes),
                        z = check.shape("out", out, 5, kPlanesAxes);
            same_samples(check, x, z, 2);
            const Windows geometry =
                windows(check, x, z, triple(check, "window", window, 1), strides, pads, dilations);
            check.require(geometry.x.product() <= std::numeric_limits<std::int32_t>::max(),
                          "src has shape " + text(x) + ": a plane has more elements than an int32 can count");
            check.apart("out", out, "src", src);
            check.apart("winners", winners, "src", src);
            check.apart("winners", winners, "out", out);
            entry.run(check, "src", src, [&](auto kind) {
                using T = decltype(kind);
                return MaxPool<T>{check.data<T>("src", src, x),
                                  check.writable<T>("out", out, z),
                                  check.writable<std::int32_t>("winners", winners, z),
                                  geometry,
                                  x[0],
                                  x[1]};
            });
        },
        py::arg("src"), py::arg("window"), py::arg("strides"), py::arg("pads"), py::arg("dilations"),
        py::arg("out"), py::arg("winners"));
}

Size plane_size(const Shape& shape) {
    Size size = 1;
    for (std::size_t axis = 2; axis < shape.size(); ++axis) size *= shape[axis];
    return size;
}

void bind(py::module_& module, Entry<MaxPoolVjp> entry) {
    module.def(
        entry.name,
        [entry](py::handle src, py::handle winners, py::handle out, bool accumulate) {
            const Checker check(entry.name);
            const Shape z = check.shape("src", src), x = check.shape("out", out);
            check.require(z.size() >= 2 && x.size() >= 2, "src and out need the axes n and channels");
            same_samples(check, z, x, 2);
            check.apart("out", out, "src", src);
            check.apart("out", out, "winners", winners);
            const auto* places = check.data<std::int32_t>("winners", winners, z);
            const Size planes = z[0] * z[1], count = planes * plane_size(z), size = plane_size(x);
            bool inside = true;
            for (Size i = 0; i < count; ++i) inside &= places[i] >= 0 && places[i] < size;
            check.require(inside, "winners has an index outside of a plane of out, which has " +
                                      std::to_string(size) + " elements");
            entry.run(check, "src", src, [&](auto kind) {
                using T = decltype(kind);
                return MaxPoolVjp<T>{check.data<T>("src", src, z),
                                     places,
                                     check.writable<T>("out", out, x),
                                     planes,
                                     plane_size(z),
                                     size,
                                     accumulate};
            });
        },
        py::arg("src"), py::arg("winners"), py::arg("out"), py::arg("accumulate"));
}

Size product(const Shape& shape) {
    Size size = 1;
    for (Size of_axis : shape) size *= of_axis;
    return size;
}

void bind(py::module_& module, Entry<Clamp> entry) {
    module.def(
        entry.name,
        [entry](py::handle src, double slope, double low, double high, py::handle out) {
            const Checker check(entry.name);
            const Shape shape = check.shape("src", src);
            check.apart("out", out, "src", src, true);
            entry.run(check, "src", src, [&](auto kind) {
                using T = decltype(kind);
                return Clamp<T>{check.data<T>("src", src, shape),
                                static_cast<T>(slope),
                                static_cast<T>(low),
                                static_cast<T>(high),
                                check.writable<T>("out", out, shape),
                                product(shape)};
            });
        },
        py::arg("src"), py::arg("slope"), py::arg("low"), py::arg("high"), py::arg("out"));
}

void bind(py::module_& module, Entry<Collect> entry) {
    module.def(
        entry.name,
        [entry](py::handle src, PartArgument src_part, py::handle times, PartArgument times_part,
                py::handle out, bool accumulate) {
            const Checker check(entry.name);
            const Shape shape = check.shape("src", src);
            check.apart("out", out, "src", src, true);
            check.apart("out", out, "times", times, true);
            entry.run(check, "src", src, [&](auto kind) {
                using T = decltype(kind);
                return Collect<T>{check.data<T>("src", src, shape),
                                  check.optional<T>("times", times, shape),
                                  check.writable<T>("out", out, shape),
                                  part<T>(src_part),
                                  part<T>(times_part),
                                  product(shape),
                                  accumulate};
            });
        },
        py::arg("src"), py::arg("src_part"), py::arg("times"), py::arg("times_part"), py::arg("out"),
        py::arg("accumulate"));
}

void bind(py::module_& module, Entry<Divide> entry) {
    module.def(
        entry.name,
        [entry](py::handle z, py::handle r, py::handle gate_z, int gate, py::handle bias, double scale,
                double epsilon, bool clip, bool norm_scale, py::handle out, py::handle ledger) {
            const Checker check(entry.name);
            const Shape of_z = check.shape("z", z, 3, "(n or 1, m, inner)"),
                        of_r = check.shape("r", r, 3, "(n, m, inner)");
            check.require(of_z[0] == 1 || of_z[0] == of_r[0], "z has " + std::to_string(of_z[0]) +
                                                                  " samples, expected 1 or r's " +
                                                                  std::to_string(of_r[0]));
            check.require(gate == 0 || !gate_z.is_none(),
                          "gate is " + std::to_string(gate) + " but gate_z is None");
            for (const auto& read : {std::make_pair("z", z), {"r", r}, {"gate_z", gate_z}}) {
                const bool one_for_all = read.second.is(z) && of_z[0] != of_r[0];
                check.apart("out", out, read.first, read.second, !one_for_all);
            }
            check.apart("out", out, "bias", bias);
            check.apart("ledger", ledger, "out", out);
            entry.run(check, "r", r, [&](auto kind) {
                using T = decltype(kind);
                return Divide<T>{check.data<T>("z", z, {of_z[0], of_r[1], of_r[2]}),
                                 check.data<T>("r", r, of_r),
                                 check.optional<T>("gate_z", gate_z, of_r),
                                 check.optional<T>("bias", bias, {of_r[1]}),
                                 check.writable<T>("out", out, of_r),
                                 check.writable<double>("ledger", ledger, {of_r[0], 4}),
                                 of_z[0],
                                 of_r[0],
                                 of_r[1],
                                 of_r[2],
                                 static_cast<T>(scale),
                                 static_cast<T>(epsilon),
                                 gate,
                                 clip,
                                 norm_scale};
            });
        },
        py::arg("z"), py::arg("r"), py::arg("gate_z"), py::arg("gate"), py::arg("bias"), py::arg("scale"),
        py::arg("epsilon"), py::arg("clip"), py::arg("norm_scale"), py::arg("out"), py::arg("ledger"));
}

void bind(py::module_& module, Entry<Sums> entry) {
    module.def(
        entry.name,
        [entry](py::handle src, py::handle out) {
            const Checker check(entry.name);
            const Shape shape = check.shape("src", src, 2, "(n, size)");
            check.apart("out", out, "src", src);
            entry.run(check, "src", src, [&](auto kind) {
                using T = decltype(kind);
                return Sums<T>{check.data<T>("src", src, shape),
                               check.writable<double>("out", out, {shape[0], 2}), shape[0], shape[1]};
            });
        },
        py::arg("src"), py::arg("out"));
}

}  // namespace
}  // namespace lrpfast

PYBIND11_MODULE(_core, module) {
    using namespace lrpfast;
    module.doc() = "The kernels in C++; src/lrpfast/backends/numpy_.py defines them.";
    py::list names;
#define KERNEL(name, Arguments) \
    names.append(#name);        \
    bind(module, Entry<Arguments>{#name, &Table<float>::name, &Table<double>::name});
#include "kernels.def"
#undef KERNEL
    module.attr("KERNELS") = py::tuple(names);

    module.def("targets", [] {
        py::list found;
        for (const Kernels* kernels : runnable_targets()) found.append(kernels->target);
        return py::tuple(found);
    });
    module.def("target", [] { return active_kernels().target; });
    module.def("set_target", &set_target, py::arg("name"));
    module.def("get_num_threads", &num_threads);
    module.def(
        "set_num_threads",
        [](int n) {
            if (n < 1)
                throw py::value_error("set_num_threads: n is " + std::to_string(n) + ", expected at least 1");
            set_num_threads(n);
        },
        py::arg("n"));
    module.def("limit_threads", &limit_threads, py::arg("n"));
}
