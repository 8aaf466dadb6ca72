#pragma once
/// What a rehearsed container runs: what the first moments of most programs do.

namespace agent {

/// The program's exit code.
int rehearse();

}  // namespace agent
