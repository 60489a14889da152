// Checks of the arrays that a kernel is called with.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels.hpp"

namespace lrpfast {

namespace py = pybind11;

using Shape = std::vector<Size>;
inline std::string text(const Shape& shape) {
    std::string all;
    for (Size size : shape)
        all += (all.empty() ? "" : ", ") + (size < 0 ? std::string("any") : std::to_string(size));
    return "(" + all + (shape.size() == 1 ? ",)" : ")");
}

template <class T>
const char* dtype_name() {
    if (std::is_same<T, float>::value) return "float32";
    return std::is_same<T, double>::value ? "float64" : "int32";
}

/// Checks the arguments of one call; every message names the kernel and the argument.
class Checker {
  public:
    explicit Checker(const char* kernel) : kernel_(kernel) {}

    [[noreturn]] void refuse(const std::string& why) const { throw py::value_error(kernel_ + (": " + why)); }

    void require(bool holds, const std::string& why) const {
        if (!holds) refuse(why);
    }

    /// The array's shape; the other properties of an array are checked by `data`.
    Shape shape(const char* name, py::handle value) const {
        const py::array found = array(name, value);
        return Shape(found.shape(), found.shape() + found.ndim());
    }

    Shape shape(const char* name, py::handle value, std::size_t axes, const char* expected) const {
        const Shape found = shape(name, value);
        require(found.size() == axes, std::string(name) + " has shape " + text(found) + ", expected " +
                                          std::to_string(axes) + " axes " + expected);
        for (std::size_t axis = 1; axis < axes; ++axis)
            require(found[axis] > 0, std::string(name) + " has shape " + text(found) + " with an empty axis");
        return found;
    }

    template <class T>
    const T* data(const char* name, py::handle value, const Shape& expected) const {
        return checked<T>(name, value, expected);
    }

    template <class T>
    T* writable(const char* name, py::handle value, const Shape& expected) const {
        const T* data = checked<T>(name, value, expected);
        require(array(name, value).writeable(), std::string(name) + " is read-only");
        return const_cast<T*>(data);
    }

    template <class T>
    const T* optional(const char* name, py::handle value, const Shape& expected) const {
        return value.is_none() ? nullptr : checked<T>(name, value, expected);
    }

    /// Two arrays that must not share memory; with `unless_same` they may be one.
    void apart(const char* name, py::handle value, const char* other, py::handle read,
               bool unless_same = false) const {
        if (read.is_none()) return;
        const py::array a = array(name, value), b = array(other, read);
        const auto* first = static_cast<const char*>(a.data());
        const auto* second = static_cast<const char*>(b.data());
        if (unless_same && first == second) return;
        require(first + a.nbytes() <= second || second + b.nbytes() <= first,
                std::string(name) + " and " + other + " share memory");
    }

    py::array array(const char* name, py::handle value) const {
        if (!py::isinstance<py::array>(value))
            throw py::type_error(kernel_ + (": " + std::string(name)) + " is " +
                                 std::string(py::str(py::type::of(value))) + ", expected a numpy array");
        return py::reinterpret_borrow<py::array>(value);
    }

  private:
    template <class T>
    const T* checked(const char* name, py::handle value, const Shape& expected) const {
        const py::array found = array(name, value);
        if (!py::dtype::of<T>().is(found.dtype()) && !py::dtype::of<T>().equal(found.dtype()))
            throw py::type_error(kernel_ + (": " + std::string(name)) + " has dtype " +
                                 std::string(py::str(found.dtype())) + ", expected " + dtype_name<T>());
        const Shape actual(found.shape(), found.shape() + found.ndim());
        require(actual == expected,
                std::string(name) + " has shape " + text(actual) + ", expected " + text(expected));
        require((found.flags() & py::array::c_style) != 0, std::string(name) + " is not C-contiguous");
        const auto* data = static_cast<const T*>(found.data());
        require(reinterpret_cast<std::uintptr_t>(data) % alignof(T) == 0,
                std::string(name) + " is not aligned");
        return data;
    }

    std::string kernel_;
};

}  // namespace lrpfast
