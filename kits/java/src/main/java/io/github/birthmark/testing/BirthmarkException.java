package io.github.birthmark.testing;

import java.util.Map;

/** The server rejects a command, or it has ended. */
public class BirthmarkException extends RuntimeException {
    private final String code;

    BirthmarkException(String message) {
        super(message);
        code = "";
    }

    BirthmarkException(Map<String, ?> told) {
        super("%s: %s %s %s".formatted(told.get("error"), told.get("message"), told.get("cause"), told.get("fix")));
        code = String.valueOf(told.get("error"));
    }

    /** Return the code of a rejection, such as testing.subject_unknown. */
    public String code() {
        return code;
    }
}
