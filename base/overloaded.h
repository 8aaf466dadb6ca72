#pragma once
/// Visits a variant with one lambda per case; a forgotten case does not compile.

namespace base {

template <class... Fs>
struct overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>
overloaded(Fs...) -> overloaded<Fs...>;  // clang 14 cannot deduce it

}  // namespace base
