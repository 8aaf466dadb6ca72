/// Runs a fuzz target without libFuzzer, so that every test run has a slice of it with whatever
/// compiler: each stored input as it is, then the same number of inputs derived from them. All of
/// it follows from the inputs alone; a failure names the input, which `./dev fuzz` can take
/// further.
///
/// Usage: X_replay RUNS PATH…     files, and folders with all files below them

#include <unistd.h>
#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr uint64_t input_bytes_max = 64u << 10;
constexpr unsigned input_seconds_max = 20;

/// What runs just now, for the signal handler.
std::string current;

void say(std::string_view text) {
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) std::_Exit(3);
}

/// A crash or a hang: the input is stored for whoever looks into it.
void on_signal(int number) {
  say(number == SIGALRM ? "an input takes too long, see fuzz-failure\n"
                        : "an input crashes, see fuzz-failure\n");
  if (FILE* file = std::fopen("fuzz-failure", "w"); file != nullptr) {
    std::fwrite(current.data(), 1, current.size(), file);
    std::fclose(file);
  }
  std::_Exit(1);
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  size_t below(size_t bound) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return bound == 0 ? 0 : static_cast<size_t>(state_ % bound);
  }

 private:
  uint64_t state_;
};

/// One small change: bytes flipped, lost, doubled, or a piece of another input put in.
void mutate(std::string& text, const std::vector<std::string>& seeds, Random& random) {
  constexpr char interesting[] = "{}[]:,-?&*!|>'\"%@`#$ \n\t\\\0\xff=.0";
  const size_t at = random.below(text.size() + 1);
  const size_t length = random.below(std::min<size_t>(text.size() - at, 64) + 1);
  switch (random.below(5)) {
    case 0:
      if (at < text.size()) text[at] = interesting[random.below(sizeof interesting - 1)];
      break;
    case 1: text.erase(at, length); break;
    case 2: text.insert(at, text.substr(at, length)); break;
    case 3: text.insert(at, 1, static_cast<char>(random.below(256))); break;
    default: {
      const std::string& other = seeds[random.below(seeds.size())];
      text.insert(at, other.substr(random.below(other.size() + 1), 1 + random.below(40)));
    }
  }
}

void run(std::string text) {
  if (text.size() > input_bytes_max) text.resize(input_bytes_max);
  current = std::move(text);
  ::alarm(input_seconds_max);
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(current.data()), current.size());
}

std::vector<std::string> read_seeds(int count, char** paths) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  for (int i = 0; i < count; ++i) {
    if (!fs::is_directory(paths[i])) {
      files.emplace_back(paths[i]);
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(paths[i]))
      if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> seeds = {""};
  for (const fs::path& file : files)
    if (auto text = base::read_file(file, input_bytes_max)) seeds.push_back(std::move(*text));
  return seeds;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM})
    std::signal(number, on_signal);
  const std::vector<std::string> seeds = read_seeds(argc - 2, argv + 2);
  for (const std::string& seed : seeds) run(seed);
  Random random(0x9E37'79B9'7F4A'7C15);
  const int runs = std::atoi(argv[1]);
  for (int i = 0; i < runs; ++i) {
    std::string text = seeds[static_cast<size_t>(i) % seeds.size()];
    for (size_t change = 0; change <= random.below(4); ++change) mutate(text, seeds, random);
    run(std::move(text));
  }
  std::printf("%zu stored inputs, %d derived\n", seeds.size(), runs);
  return 0;
}
