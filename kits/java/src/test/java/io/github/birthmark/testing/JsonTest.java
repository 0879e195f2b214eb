package io.github.birthmark.testing;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class JsonTest {
    @Test
    void aValueOfEachKindIsParsed() {
        String line = " {\"a\": [1, -2.5e1, true, null], \"b\": {\"c\": \"d\"}, \"e\": []} ";
        Map<?, ?> value = (Map<?, ?>) Json.parse(line);
        assertEquals(Arrays.asList(1.0, -25.0, true, null), value.get("a"));
        assertEquals(Map.of("c", "d"), value.get("b"));
        assertEquals(List.of(), value.get("e"));
    }

    @Test
    void aTextIsTheSameAfterFormattingAndParsing() {
        String text = "\"quoted\" \\ line\n tab\t \u0001 größer 日本 🌡";
        assertEquals(Map.of("a", text, "b", "1"), Json.parse(Json.format(Map.of("a", text, "b", 1))));
        assertEquals("🌡 / \b\f", Json.parse("\"\\ud83c\\udf21 \\/ \\b\\f\""));
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "{", "[1", "[1 2]", "{\"a\"}", "\"open", "\"\\u12\"", "yes", "{} {}", "{\"a\": 1,}"})
    void aLineThatIsNotJsonIsRejected(String line) {
        assertThrows(IllegalArgumentException.class, () -> Json.parse(line));
    }
}
