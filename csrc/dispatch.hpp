// Which of the compiled instruction sets runs.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace lrpfast {

/// The targets that were compiled and that this CPU can run, best first.
std::vector<const Kernels*> runnable_targets();

/// The kernels that run: the best, until set_target.
const Kernels& active_kernels();

/// Choose by name; throws std::invalid_argument, listing the choices, if it cannot run here.
void set_target(const std::string& name);

}  // namespace lrpfast
