#pragma once
/// Variables in a Dockerfile's words, replaced as the reference does it: in one pass, so that a
/// value's own `$` is text, and within bounds.
///
/// Forms: `$V ${V} ${V:-x} ${V-x} ${V:+x} ${V+x} ${V:?x} ${V?x} ${V#p} ${V##p} ${V%p} ${V%%p}
/// ${V/p/r} ${V//p/r}`; single quotes keep their text, double quotes allow variables, the file's
/// escape character takes the meaning from what follows it. Quotes are removed.
///
/// Pure. What a variable is worth is the caller's to say; it also learns which ones were asked for,
/// since those are part of a step's cache key.

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "builder/dockerfile.h"

namespace builder {

/// The value of a variable, or nullopt if it is not set.
using Lookup = std::function<std::optional<std::string>(std::string_view name)>;

/// Names met while words were expanded.
struct UsedVariables {
  std::set<std::string> found;
  std::set<std::string> unset;  ///< Without the ones that a form with a default allows for.
};

class Expander {
 public:
  /// `used`, if given, collects names and must outlive the Expander.
  Expander(char escape, Lookup lookup, UsedVariables* used = nullptr)
      : escape_(escape), lookup_(std::move(lookup)), used_(used) {}

  /// One word: quotes and escapes are taken away. InvalidArgument names what is wrong with it.
  base::Result<std::string> word(std::string_view text) const;
  /// Split at white space outside of quotes; an unquoted variable's value is split as well.
  base::Result<std::vector<std::string>> words(std::string_view text) const;
  /// A here document: variables are replaced, quotes and escapes stay.
  base::Result<std::string> raw(std::string_view text) const;

 private:
  char escape_;
  Lookup lookup_;
  UsedVariables* used_;
};

/// The instruction with its variables replaced, where the reference replaces them: all words of
/// ARG, ENV, LABEL (keys too), EXPOSE (which splits), VOLUME, USER, WORKDIR, STOPSIGNAL; sources,
/// target, owner, mode, checksum, patterns and unquoted here documents of COPY and ADD; mounts of
/// RUN, which are checked here again. The command of RUN, CMD, ENTRYPOINT, HEALTHCHECK and SHELL,
/// and ONBUILD, stay as they are: the first ones are the shell's to expand.
///
/// All words of one instruction see the variables as they were before it.
base::Result<Operation> expand(const Operation& operation, const Expander& expander);

/// `FROM`, with the arguments before the first FROM. The name of the stage is never expanded.
base::Result<FromInstruction> expand(const FromInstruction& from, const Expander& expander);

}  // namespace builder
