#!/usr/bin/env python3
"""Tests of tools/tidy.py: each rule finds what it is for, and leaves good code alone."""
import unittest

import tidy


def messages(path, text):
    return [message for _, message in tidy.check_text(path, text)]


class IncludeDirections(unittest.TestCase):
    def test_a_room_may_include_what_lies_below_it(self):
        self.assertEqual(messages("planner/a.cpp", '#include "spec/stack.h"\n'), [])

    def test_the_planner_may_not_include_a_driver(self):
        found = messages("planner/a.cpp", '#include "runtime/driver.h"\n')
        self.assertEqual(len(found), 1)
        self.assertIn("planner/ may not include runtime/driver.h", found[0])

    def test_a_driver_sees_only_its_own_port(self):
        self.assertEqual(messages("image/a.cpp", '#include "reconciler/ports/image.h"\n'), [])
        self.assertEqual(len(messages("image/a.cpp", '#include "reconciler/reconciler.h"\n')), 1)
        self.assertEqual(len(messages("runtime/a.cpp", '#include "dns/server.h"\n')), 1)


class Form(unittest.TestCase):
    def test_lines_have_a_bound(self):
        self.assertEqual(messages("base/a.cpp", "x" * 101 + "\n"), ["101 columns, at most 100"])

    def test_functions_have_a_bound(self):
        short = "int f() {\n" + "  g();\n" * 68 + "}\n"
        long = "int f() {\n" + "  g();\n" * 69 + "}\n"
        self.assertEqual(messages("base/a.cpp", short), [])
        self.assertEqual(messages("base/a.cpp", long), ["a function of 71 lines, at most 70"])

    def test_a_long_table_is_no_function(self):
        self.assertEqual(messages("base/a.cpp", "constexpr T t[] = {\n" + "  {1},\n" * 90 + "};\n"), [])

    def test_headers_are_guarded(self):
        self.assertEqual(messages("base/a.h", "int x;\n"), ["a header without #pragma once"])


class Tries(unittest.TestCase):
    def lines(self, text):
        return tidy.tries_in_initializers(text)

    def test_a_later_element_is_refused(self):
        self.assertEqual(self.lines("f() {\n  return A{.a = TRY(x()),\n           .b = TRY(y())};\n}\n"),
                         [3])
        self.assertEqual(self.lines('f() {\n  use({{"a", b}, {"c", TRY(d(1, 2))}});\n}\n'), [2])

    def test_the_first_element_has_nothing_before_it(self):
        self.assertEqual(self.lines("f() { return A{.a = TRY(x(1, 2)), .b = 3}; }\n"), [])

    def test_arguments_are_destroyed(self):
        self.assertEqual(self.lines("f() { call(a, TRY(x())); B b(a, TRY(y())); }\n"), [])

    def test_a_lambda_is_left_alone(self):
        self.assertEqual(self.lines("f() { A a{.n = 1, .f = [] { return TRY(x()); }}; }\n"), [])

    def test_what_is_quoted_is_no_code(self):
        self.assertEqual(self.lines("f() { A a{.n = 1, .s = \"TRY(x)\"}; }  // {1, TRY(x)}\n"), [])


class OwnHeader(unittest.TestCase):
    def found(self, text):
        return [message for _, message in tidy.check_own_header("base/a.cpp", text)]

    def test_a_header_is_the_first_thing_its_source_includes(self):
        self.assertEqual(self.found('// why\n#include "base/a.h"\n\n#include <map>\n'), [])

    def test_what_comes_before_it_could_hide_what_it_lacks(self):
        self.assertIn("before base/a.h", self.found('#include <map>\n#include "base/a.h"\n')[0])

    def test_a_source_without_it_shows_nothing(self):
        self.assertEqual(self.found("int x;\n"), ["does not include base/a.h"])


class BannedCalls(unittest.TestCase):
    def test_sleeping_is_refused_with_its_replacement(self):
        self.assertIn("wait for the event", messages("base/a.cpp", "  usleep(10);\n")[0])

    def test_the_word_in_a_comment_is_fine(self):
        self.assertEqual(messages("base/a.cpp", "// never sleep(1) here\n"), [])

    def test_members_called_system_are_fine(self):
        self.assertEqual(messages("base/a.cpp", "  api.system(x);\n"), [])

    def test_leftover_marks_are_found(self):
        self.assertEqual(len(messages("base/a.cpp", "// TO" + "DO later\n")), 1)


if __name__ == "__main__":
    unittest.main()
