// Calls of kernels: one at once, or many in a row that were checked beforehand.
#pragma once

#include <chrono>
#include <memory>

#include "dispatch.hpp"
#include "families.hpp"
#include "packing.hpp"

namespace lrpfast {

/// One kernel in the tables.
template <template <class> class Arguments>
struct Entry {
    using F32 = void (*)(const Arguments<float>&);
    using F64 = void (*)(const Arguments<double>&);
    const char* name;
    F32 Table<float>::* f32;
    F64 Table<double>::* f64;

    bool is_forward() const {
        const std::string whole = name, suffix = "_forward";
        return whole.size() > suffix.size() &&
               whole.compare(whole.size() - suffix.size(), suffix.size(), suffix) == 0;
    }
    void call(const Kernels& kernels, const Arguments<float>& arguments) const {
        (kernels.f32.*f32)(arguments);
    }
    void call(const Kernels& kernels, const Arguments<double>& arguments) const {
        (kernels.f64.*f64)(arguments);
    }
};

/// A kernel with arguments that were checked.
class Call {
  public:
    virtual ~Call() = default;
    /// A Program's call runs on n samples, whose arrays are in the arena.
    virtual void run(const Kernels& kernels, char* arena, Size n) const = 0;
    /// In words: the form that the kernel has chosen, or nothing.
    virtual const char* form(const Kernels& kernels) const = 0;
    /// Do once what these kernels would do in every run.
    virtual void prepare(const Kernels& kernels) = 0;
};

template <template <class> class Arguments, class T>
class CallOf : public Call {
  public:
    CallOf(const Entry<Arguments>& entry, Reader& in) : entry_(entry) {
        in.fill(&arguments_);
        Family<Arguments>::read(in, arguments_, entry.is_forward());
        in.require_apart();
        patches_ = in.take_patches();
    }

    /// Several threads may run one call at once: each patches a copy.
    void run(const Kernels& kernels, char* arena, Size n) const override {
        Arguments<T> arguments = arguments_;
        for (const Patch& patch : patches_) patch.apply(&arguments, arena, n);
        entry_.call(kernels, arguments);
    }

    const char* form(const Kernels& kernels) const override { return form_of(kernels, arguments_); }
    void prepare(const Kernels& kernels) override { pack(kernels, arguments_); }

  private:
    /// Only convolutions have forms to choose from, and weights that are packed.
    const char* form_of(const Kernels&, ...) const { return ""; }
    const char* form_of(const Kernels& kernels, const Conv<T>& conv) const {
        return table_of(kernels, T()).conv_form(conv, !entry_.is_forward());
    }
    void pack(const Kernels&, ...) {}
    void pack(const Kernels& kernels, Conv<T>& conv) {
        panels_ = packed(kernels, conv, !entry_.is_forward());
        conv.panels = panels_.get();
    }

    Entry<Arguments> entry_;
    Arguments<T> arguments_{};
    std::vector<Patch> patches_;
    std::shared_ptr<const T> panels_;
};

template <template <class> class Arguments>
std::unique_ptr<Call> make_call(const Entry<Arguments>& entry, Reader& in) {
    const auto names = Family<Arguments>::parameters();
    in.expect_names(names);
    const char* const leader = names.front();
    if (in.is<float>(leader)) return std::make_unique<CallOf<Arguments, float>>(entry, in);
    if (in.is<double>(leader)) return std::make_unique<CallOf<Arguments, double>>(entry, in);
    in.refuse_type(std::string(leader) + " has dtype " + in.dtype(leader) + ", expected float32 or float64");
}

/// Many calls, for any number of samples, whose arrays lie in an arena. They run on the SIMD target that was
/// the active one when the first was read.
class Program {
  public:
    explicit Program(const py::iterable& calls) : kernels_(active_kernels()) {
        for (py::handle call : calls) {
            const std::string label = "Program: call " + std::to_string(calls_.size());
            py::detail::make_caster<std::pair<std::string, py::dict>> pair;
            if (!pair.load(call, true))
                throw py::type_error(label + " is " + std::string(py::repr(call)) +
                                     ", expected a kernel's name and a dict of its arguments");
            const auto [kernel, arguments] =
                py::detail::cast_op<std::pair<std::string, py::dict>>(std::move(pair));
            Reader in(label + ", " + kernel, arguments, &ground_);
            calls_.push_back(make(kernel, in));
            calls_.back()->prepare(kernels_);
        }
    }

    void run(const py::array& arena, Size n) const {
        char* const memory = checked(arena, n);
        const py::gil_scoped_release release;
        for (const auto& call : calls_) call->run(kernels_, memory, n);
    }

    /// The seconds that each call takes.
    std::vector<double> profile(const py::array& arena, Size n) const {
        using Clock = std::chrono::steady_clock;
        char* const memory = checked(arena, n);
        const py::gil_scoped_release release;
        std::vector<double> seconds;
        for (const auto& call : calls_) {
            const auto before = Clock::now();
            call->run(kernels_, memory, n);
            seconds.push_back(std::chrono::duration<double>(Clock::now() - before).count());
        }
        return seconds;
    }

    /// For each call the form that its kernel has chosen, in words.
    std::vector<std::string> forms() const {
        std::vector<std::string> found;
        for (const auto& call : calls_) found.emplace_back(call->form(kernels_));
        return found;
    }

    Size bytes_per_sample() const { return ground_.bytes_per_sample; }

  private:
    static std::unique_ptr<Call> make(const std::string& kernel, Reader& in) {
        std::string names;
#define KERNEL(name, Arguments)                                                                            \
    if (kernel == #name) return make_call(Entry<Arguments>{#name, &Table<float>::name, &Table<double>::name}, in); \
    names += (names.empty() ? "" : ", ") + std::string(#name);
#include "kernels.def"
#undef KERNEL
        in.require(false, "there is no such kernel, expected one of: " + names);
        return nullptr;
    }

    char* checked(const py::array& arena, Size n) const {
        // Messages are made only when they are needed: this is run with every program.
        const auto refuse = [](const std::string& why) { throw py::value_error("Program: " + why); };
        if (n < 1) refuse("n is " + std::to_string(n) + ", expected at least 1");
        if (!arena.dtype().is(py::dtype::of<std::uint8_t>()) &&
            !arena.dtype().equal(py::dtype::of<std::uint8_t>()))
            refuse("the arena has dtype " + std::string(py::str(arena.dtype())) + ", expected uint8");
        if ((arena.flags() & py::array::c_style) == 0) refuse("the arena is not C-contiguous");
        if (!arena.writeable()) refuse("the arena is read-only");
        if (reinterpret_cast<std::uintptr_t>(arena.data()) % kAlignment != 0)
            refuse("the arena is not aligned to " + std::to_string(kAlignment) + " bytes");
        if (arena.nbytes() / n < bytes_per_sample())
            refuse("the arena has " + std::to_string(arena.nbytes()) + " bytes, expected at least " +
                   std::to_string(bytes_per_sample()) + " for each of " + std::to_string(n) + " samples");
        return static_cast<char*>(const_cast<void*>(arena.data()));
    }

    static constexpr std::size_t kAlignment = 64;

    const Kernels& kernels_;
    Ground ground_;
    std::vector<std::unique_ptr<Call>> calls_;
};

}  // namespace lrpfast
