// The arguments of one call, found by name, and checked before a kernel sees them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <cstring>
#include <algorithm>
#include <array>
#include <initializer_list>
#include <limits>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels.hpp"

namespace lrpfast {

namespace py = pybind11;

using Shape = std::vector<Size>;
using AxisNames = std::initializer_list<const char*>;

inline std::string text(const Shape& shape) {
    std::string all;
    for (Size size : shape) all += (all.empty() ? "" : ", ") + std::to_string(size);
    return "(" + all + (shape.size() == 1 ? ",)" : ")");
}

inline std::string type_name(py::handle value) { return py::str(py::type::of(value)); }

template <class T>
const char* dtype_name() {
    if (std::is_same<T, float>::value) return "float32";
    return std::is_same<T, double>::value ? "float64" : "int32";
}

/// More bytes, or elements, than a computer can address: sizes up to it can be added and scaled without overflow.
constexpr Size kMost = Size{1} << 47;

/// What is written into a call's arguments before it runs on n samples.
struct Patch {
    std::size_t field;  // where in the arguments, in bytes
    Size per_sample;    // where in the arena, in bytes; or, of a count, how many
    bool is_count;

    void apply(void* arguments, char* arena, Size n) const {
        const Size count = per_sample * n;
        const void* const data = arena + (is_count ? 0 : count);
        char* const to = static_cast<char*>(arguments) + field;
        is_count ? std::memcpy(to, &count, sizeof count) : std::memcpy(to, &data, sizeof data);
    }
};

/// What the calls of a Program lie on.
struct Ground {
    Size bytes_per_sample = 0;  // of the arena
    py::list constants;         // which the calls point to
};

/// Reads a call's arguments into a struct. Arrays are NumPy's, or, in a Program, Views of its arena.
///
/// Arguments are named by paths, such as "end.out"; every message names the call and the argument.
/// The shapes of Views are those of one sample.
class Reader {
  public:
    Reader(std::string call, py::dict values, Ground* ground = nullptr)
        : call_(std::move(call)), values_(std::move(values)), ground_(ground) {}

    // --- refusals ---

    void require(bool holds, const std::string& why) const {
        if (!holds) throw py::value_error(call_ + ": " + why);
    }
    [[noreturn]] void refuse_type(const std::string& why) const { throw py::type_error(call_ + ": " + why); }

    /// There has to be an argument of each of these names, and no other.
    void expect_names(const std::vector<const char*>& names) const {
        for (const char* name : names)
            if (!values_.contains(name)) refuse_type(std::string("the argument '") + name + "' is missing");
        for (const auto& item : values_) {
            const std::string given = py::str(item.first);
            bool known = false;
            for (const char* name : names) known |= given == name;
            if (!known) refuse_type("there is no argument '" + given + "'");
        }
    }

    // --- values ---

    bool in_program() const { return ground_ != nullptr; }

    /// Each is asked for once: what was checked is what is used, and lives as long as the reader, even if it is
    /// made anew whenever it is asked for.
    py::object at(const std::string& path) const {
        const auto known = seen_.find(path);
        return known != seen_.end() ? known->second : seen_.emplace(path, asked_for(path)).first->second;
    }

    bool has(const std::string& path) const { return !at(path).is_none(); }

    template <class Value>
    Value value(const std::string& path, const char* expected) const {
        const py::object found = at(path);
        py::detail::make_caster<Value> caster;
        if (!is_loaded(caster, found, !std::is_same<Value, bool>::value))  // what is true by being there is no flag
            refuse_type(path + " is " + std::string(py::repr(found)) + ", expected " + expected);
        return py::detail::cast_op<Value>(std::move(caster));
    }

    Size size(const std::string& path, Size least) const {
        const Size found = value<Size>(path, "a whole number");
        require(found >= least,
                path + " is " + std::to_string(found) + ", expected at least " + std::to_string(least));
        require(found <= kMost,
                path + " is " + std::to_string(found) + ", expected at most " + std::to_string(kMost));
        return found;
    }

    template <class T>
    T number(const std::string& path) const {
        return static_cast<T>(value<double>(path, "a number"));
    }

    bool flag(const std::string& path) const { return value<bool>(path, "True or False"); }

    Triple triple(const std::string& path, Size least) const {
        const auto found = value<std::array<Size, 3>>(path, "three whole numbers");
        for (Size of_axis : found)
            require(of_axis >= least && of_axis <= std::numeric_limits<std::int32_t>::max(),
                    path + " is " + text({found.begin(), found.end()}) +
                        ", expected three numbers of at least " + std::to_string(least));
        return {{found[0], found[1], found[2]}};
    }

    template <class T>
    Part<T> part(const std::string& path) const {
        const auto found = value<std::pair<double, double>>(path, "two numbers");
        return {static_cast<T>(found.first), static_cast<T>(found.second)};
    }

    // --- arrays ---

    /// The array's shape; its other properties are checked where it is read.
    Shape shape(const std::string& path, AxisNames axes) const {
        const Shape found = array(path).shape;
        std::string names;
        for (const char* name : axes) names += (names.empty() ? "" : ", ") + std::string(name);
        require(found.size() == axes.size(), path + " has shape " + text(found) + ", expected " +
                                                 std::to_string(axes.size()) + " axes (" + names + ")");
        for (std::size_t axis = 1; axis < found.size(); ++axis)
            require(found[axis] > 0, path + " has shape " + text(found) + " with an empty axis");
        return found;
    }

    bool is_view(const std::string& path) const { return array(path).view; }

    template <class T>
    bool is(const std::string& path) const {
        return is<T>(array(path).dtype);
    }
    std::string dtype(const std::string& path) const { return py::str(array(path).dtype); }

    // --- reading into the struct ---

    /// What is read from now on are fields of `arguments`.
    void fill(void* arguments) { arguments_ = static_cast<char*>(arguments); }

    /// A number of samples; `of_one` is that of one sample where the call is a Program's.
    void count(Size of_one, Size& field) {
        field = of_one;
        if (in_program()) patch(&field, of_one, true);
    }

    /// An array with samples; one that is written to if the field lets it. Two that are `in_place` may be one.
    template <class T>
    void sampled(const std::string& path, const Shape& expected, T*& field, bool in_place = false) {
        const Array found = checked<std::remove_const_t<T>>(path, expected);
        if (in_program() && !found.view)
            refuse_type(path + " is a numpy array, expected a View: a Program runs on any number of samples");
        if (!std::is_const<T>::value && !found.view)
            require(found.writeable, path + " is read-only");
        if (found.view) {
            ground_->bytes_per_sample = std::max(ground_->bytes_per_sample, found.begin + found.bytes);
            patch(&field, found.begin, false);
        } else {
            field = reinterpret_cast<T*>(found.begin);
        }
        spans_.push_back({path, found.begin, found.begin + found.bytes, found.view, !std::is_const<T>::value,
                          in_place});
    }

    /// An array that is the same for all samples.
    template <class T>
    void constant(const std::string& path, const Shape& expected, const T*& field) {
        const Array found = checked<T>(path, expected);
        if (found.view) refuse_type(path + " is a View, expected a numpy array: the same for all samples");
        if (in_program()) ground_->constants.append(at(path));
        field = reinterpret_cast<const T*>(found.begin);
        spans_.push_back({path, found.begin, found.begin + found.bytes, false, false, false});
    }

    /// Arrays that are written to must not share memory with others. To be called once all are read.
    void require_apart() const {
        for (std::size_t i = 0; i < spans_.size(); ++i)
            for (std::size_t j = 0; j < spans_.size(); ++j) {
                const Span &written = spans_[i], &other = spans_[j];
                if (i == j || !written.is_written || written.in_arena != other.in_arena) continue;
                if (written.in_place && other.in_place && written.begin == other.begin) continue;
                require(written.end <= other.begin || other.end <= written.begin,
                        written.path + " and " + other.path + " share memory");
            }
    }

    std::vector<Patch> take_patches() { return std::move(patches_); }

  private:
    /// An array, or a View, as Python hands it over.
    struct Array {
        py::dtype dtype;
        Shape shape;
        Size begin, bytes;  // an address; or, of a View, bytes per sample
        bool view, contiguous, writeable;
    };

    struct Span {
        std::string path;
        Size begin, end;
        bool in_arena, is_written, in_place;
    };

    /// Looking into a value runs its own code, which may fail in any way.
    template <class Caster>
    static bool is_loaded(Caster& caster, const py::object& value, bool convert) {
        try {
            return caster.load(value, convert);
        } catch (const py::error_already_set& error) {
            if (!error.matches(PyExc_Exception)) throw;
            return false;
        }
    }

    py::object asked_for(const std::string& path) const {
        const std::size_t dot = path.rfind('.');
        if (dot == std::string::npos) return values_[path.c_str()];
        const std::string owner = path.substr(0, dot), name = path.substr(dot + 1);
        const py::object from = at(owner);
        if (!py::hasattr(from, name.c_str()))
            refuse_type(owner + " is " + type_name(from) + ", which has no '" + name + "'");
        return from.attr(name.c_str());
    }

    Array array(const std::string& path) const {
        const py::object value = at(path);
        if (in_program() && py::hasattr(value, "offset")) return view(path);
        if (!py::isinstance<py::array>(value))
            refuse_type(path + " is " + type_name(value) + ", expected a numpy array" +
                        (in_program() ? " or a View" : ""));
        const auto found = py::reinterpret_borrow<py::array>(value);
        return {found.dtype(),
                Shape(found.shape(), found.shape() + found.ndim()),
                reinterpret_cast<Size>(found.data()),
                found.nbytes(),
                false,
                (found.flags() & py::array::c_style) != 0,
                found.writeable()};
    }

    Array view(const std::string& path) const {
        Shape shape{size(path + ".rows", 1)};
        for (Size of_axis : value<Shape>(path + ".shape", "whole numbers")) shape.push_back(of_axis);
        const py::dtype dtype = dtype_of_view(path + ".dtype");
        Size bytes = dtype.itemsize();
        for (Size of_axis : shape) {
            require(of_axis > 0, path + " has shape " + text(shape) + " with an empty axis");
            require(bytes <= kMost / of_axis, path + " has shape " + text(shape) + ", too large for any memory");
            bytes *= of_axis;
        }
        const Size offset = value<Size>(path + ".offset", "a whole number");
        require(offset >= 0 && offset <= kMost, path + " is View '" + std::string(py::str(at(path + ".array"))) +
                                                    "', which has no place in the arena yet: its offset is " +
                                                    std::to_string(offset));
        return {dtype, shape, offset, bytes, true, true, true};
    }

    py::dtype dtype_of_view(const std::string& path) const {
        const py::object found = at(path);
        try {
            return py::dtype::from_args(found);
        } catch (const py::error_already_set& error) {
            if (!error.matches(PyExc_Exception)) throw;
            refuse_type(path + " is " + std::string(py::repr(found)) + ", expected a dtype");
        }
    }

    template <class T>
    static bool is(const py::dtype& dtype) {
        return dtype.is(py::dtype::of<T>()) || dtype.equal(py::dtype::of<T>());
    }

    template <class T>
    Array checked(const std::string& path, const Shape& expected) const {
        Array found = array(path);
        if (!is<T>(found.dtype))
            refuse_type(path + " has dtype " + std::string(py::str(found.dtype)) + ", expected " +
                        dtype_name<T>());
        require(found.shape == expected,
                path + " has shape " + text(found.shape) + ", expected " + text(expected));
        require(found.contiguous, path + " is not C-contiguous");
        require(found.begin % static_cast<Size>(alignof(T)) == 0, path + " is not aligned");
        return found;
    }

    void patch(const void* field, Size per_sample, bool is_count) {
        const auto where = static_cast<std::size_t>(static_cast<const char*>(field) - arguments_);
        patches_.push_back({where, per_sample, is_count});
    }

    std::string call_;
    py::dict values_;
    Ground* ground_;
    mutable std::map<std::string, py::object> seen_;
    char* arguments_ = nullptr;
    std::vector<Patch> patches_;
    std::vector<Span> spans_;
};

}  // namespace lrpfast
