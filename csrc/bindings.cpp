// The Python module lrpfast._core: checks every argument, releases the GIL, calls the table. No arithmetic here.
#include "program.hpp"
#include "threads.hpp"

namespace lrpfast {
namespace {

/// The arguments of a Python call by their names.
py::dict by_name(const char* kernel, const std::vector<const char*>& names, const py::args& given,
                 const py::kwargs& named) {
    if (given.size() > names.size())
        throw py::type_error(std::string(kernel) + ": there are " + std::to_string(given.size()) +
                             " arguments, expected " + std::to_string(names.size()));
    py::dict all = named;
    for (std::size_t i = 0; i < given.size(); ++i) {
        if (all.contains(names[i]))
            throw py::type_error(std::string(kernel) + ": the argument '" + names[i] + "' is given twice");
        all[names[i]] = given[i];
    }
    return all;
}

template <template <class> class Arguments>
void bind(py::module_& module, Entry<Arguments> entry) {
    const auto names = Family<Arguments>::parameters();
    std::string signature;
    for (const char* name : names) signature += (signature.empty() ? "" : ", ") + std::string(name);
    module.def(
        entry.name,
        [entry, names](const py::args& given, const py::kwargs& named) {
            Reader in(entry.name, by_name(entry.name, names, given, named));
            const std::unique_ptr<Call> call = make_call(entry, in);
            const py::gil_scoped_release release;
            call->run(active_kernels(), nullptr, 0);
        },
        (std::string(entry.name) + "(" + signature + "): see lrpfast.backends.numpy_").c_str());
}

}  // namespace
}  // namespace lrpfast

// Nothing here needs the GIL: programs never change, and what calls share has a lock (threads.cpp, packing.hpp) or is
// atomic.
PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
    using namespace lrpfast;
    module.doc() = "The kernels in C++; src/lrpfast/backends/numpy_.py defines them.";
    module.attr("LANES") = kLanesOfBlock;
    // What is as large as its arguments says its size (memory.hpp); for the rest the error is Python's own.
    py::register_local_exception_translator([](std::exception_ptr thrown) {
        try {
            std::rethrow_exception(thrown);
        } catch (const OutOfMemory& error) {
            py::set_error(PyExc_MemoryError, error.what());
        } catch (const std::bad_alloc&) {
            PyErr_NoMemory();
        }
    });
    py::list names;
#define KERNEL(name, Arguments) \
    names.append(#name);        \
    bind(module, Entry<Arguments>{#name, &Table<float>::name, &Table<double>::name});
#include "kernels.def"
#undef KERNEL
    module.attr("KERNELS") = py::tuple(names);

    py::class_<Program>(module, "Program", "Kernel calls that run in a row; see _core.pyi.")
        .def(py::init<py::iterable>(), py::arg("calls"))
        .def("run", &Program::run, py::arg("arena"), py::arg("n"))
        .def("profile", &Program::profile, py::arg("arena"), py::arg("n"))
        .def_property_readonly("forms", &Program::forms)
        .def_property_readonly("bytes_per_sample", &Program::bytes_per_sample);

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
