package io.github.birthmark.testing;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

/** JSON as the test server reads and writes it: a value on a line. */
final class Json {
    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    /** Return a map, list, string, number, boolean, or null. */
    static Object parse(String text) {
        Json json = new Json(text);
        Object value = json.value();
        if (json.peek() != '\0') {
            throw json.invalid();
        }
        return value;
    }

    static String format(Map<String, ?> object) {
        return object.entrySet().stream()
            .map(one -> quote(one.getKey()) + ": " + quote(String.valueOf(one.getValue())))
            .collect(Collectors.joining(", ", "{", "}"));
    }

    private static String quote(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char one : text.toCharArray()) {
            if (one < ' ' || one == '"' || one == '\\') {
                quoted.append(String.format("\\u%04x", (int) one));
            } else {
                quoted.append(one);
            }
        }
        return quoted.append('"').toString();
    }

    private Object value() {
        return switch (peek()) {
            case '{' -> object();
            case '[' -> list();
            case '"' -> string();
            default -> word();
        };
    }

    private Object word() {
        int start = at;
        while (at < text.length() && ",]} ".indexOf(text.charAt(at)) < 0) {
            at++;
        }
        String word = text.substring(start, at);
        return switch (word) {
            case "null" -> null;
            case "true", "false" -> word.equals("true");
            default -> {
                if (!word.matches("-?[0-9][0-9.eE+-]*")) {
                    throw invalid();
                }
                yield Double.valueOf(word);
            }
        };
    }

    private Map<String, Object> object() {
        Map<String, Object> found = new LinkedHashMap<>();
        require('{');
        if (accept('}')) {
            return found;
        }
        do {
            String name = string();
            require(':');
            found.put(name, value());
        } while (accept(','));
        require('}');
        return found;
    }

    private List<Object> list() {
        List<Object> found = new ArrayList<>();
        require('[');
        if (accept(']')) {
            return found;
        }
        do {
            found.add(value());
        } while (accept(','));
        require(']');
        return found;
    }

    private String string() {
        require('"');
        StringBuilder found = new StringBuilder();
        while (next() != '"') {
            char one = text.charAt(at - 1);
            found.append(one == '\\' ? escaped(next()) : one);
        }
        return found.toString();
    }

    private char escaped(char mark) {
        if (mark == 'u') {
            return (char) Integer.parseInt("" + next() + next() + next() + next(), 16);
        }
        int known = "nrtbf".indexOf(mark);
        return known < 0 ? mark : "\n\r\t\b\f".charAt(known);
    }

    private char next() {
        if (at == text.length()) {
            throw invalid();
        }
        return text.charAt(at++);
    }

    private char peek() {
        while (at < text.length() && Character.isWhitespace(text.charAt(at))) {
            at++;
        }
        return at < text.length() ? text.charAt(at) : '\0';
    }

    private boolean accept(char mark) {
        boolean isNext = peek() == mark;
        at += isNext ? 1 : 0;
        return isNext;
    }

    private void require(char mark) {
        if (!accept(mark)) {
            throw invalid();
        }
    }

    private IllegalArgumentException invalid() {
        return new IllegalArgumentException("not JSON at character " + at + ": " + text);
    }
}
