#pragma once
/// `$NAME` and `${NAME:-word}` in a text, as the Compose Specification defines them.
///
/// Pure: names are looked up through a function. Defaults and messages are evaluated only where
/// they are used, so an unset variable inside an unused default is no problem.

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spec {

/// The value of a variable, or nullptr if it is not set.
using VariableLookup = std::function<const std::string*(std::string_view name)>;

struct Interpolated {
  std::string text;
  std::vector<std::string> unset;  ///< Names that became blank because they are not set.
};

/// InvalidArgument for `${}`, `${a b}`, `${a` and for a `${NAME:?message}` without a value; NoSpace
/// if the result would be longer than `bytes_max`.
base::Result<Interpolated> interpolate(std::string_view text, const VariableLookup& lookup,
                                       size_t bytes_max);

}  // namespace spec
