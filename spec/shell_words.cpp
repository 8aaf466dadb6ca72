#include "spec/shell_words.h"

namespace spec {
namespace {

constexpr std::string_view blanks = " \t\r\n";
constexpr std::string_view shell_operators = ";&|<>`";

class Splitter {
 public:
  explicit Splitter(std::string_view text) : rest_(text) {}

  base::Result<std::vector<std::string>> split() {
    while (!rest_.empty()) {
      const char c = take();
      if (blanks.find(c) != std::string_view::npos) {
        finish_word();
      } else if (c == '\'') {
        TRY(take_single_quoted());
      } else if (c == '"') {
        TRY(take_double_quoted());
      } else if (c == '\\') {
        TRY(take_escaped());
      } else if (shell_operators.find(c) != std::string_view::npos) {
        return base::fail(base::ErrorCode::InvalidArgument,
                          "'{}' has no meaning here: no shell reads this text; quote it, or ask "
                          "for a shell with [\"sh\", \"-c\", \"…\"]",
                          c);
      } else {
        add(c);
      }
    }
    finish_word();
    return std::move(words_);
  }

 private:
  char take() {
    const char c = rest_.front();
    rest_.remove_prefix(1);
    return c;
  }

  void add(char c) {
    word_ += c;
    in_word_ = true;
  }

  void finish_word() {
    if (in_word_) words_.push_back(std::move(word_));
    word_.clear();
    in_word_ = false;
  }

  base::Result<> take_single_quoted() {
    const size_t end = rest_.find('\'');
    if (end == std::string_view::npos) return unterminated('\'');
    word_ += rest_.substr(0, end);
    in_word_ = true;  // '' is a word, if an empty one
    rest_.remove_prefix(end + 1);
    return {};
  }

  base::Result<> take_double_quoted() {
    in_word_ = true;
    while (!rest_.empty()) {
      const char c = take();
      if (c == '"') return {};
      const bool escapes =
          c == '\\' && !rest_.empty() &&
          std::string_view("\"\\$`\n").find(rest_.front()) != std::string_view::npos;
      word_ += escapes ? take() : c;
    }
    return unterminated('"');
  }

  base::Result<> take_escaped() {
    if (rest_.empty())
      return base::fail(base::ErrorCode::InvalidArgument, "a backslash at the end quotes nothing");
    if (const char c = take(); c != '\n') add(c);  // backslash, line end: the line goes on
    return {};
  }

  static base::Result<> unterminated(char quote) {
    return base::fail(base::ErrorCode::InvalidArgument, "the quote {} is never closed", quote);
  }

  std::string_view rest_;
  std::string word_;
  bool in_word_ = false;
  std::vector<std::string> words_;
};

}  // namespace

base::Result<std::vector<std::string>> split_words(std::string_view text) {
  return Splitter(text).split();
}

}  // namespace spec
