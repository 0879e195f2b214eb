package birthmark;

import com.google.gson.Gson;
import java.io.IOException;
import java.io.OutputStream;

/** Runs the operation of a client program, and prints its results as JSON, an object a line. */
final class Program {
    /** How long a program waits for a server. */
    static final int PATIENCE_S = 30;
    private static final Gson JSON = new Gson();

    private Program() {
    }

    /** What a client does; a result that is not null is printed. */
    @FunctionalInterface
    interface Operations {
        Object run(String name) throws Exception;
    }

    /** Runs the operation that the first argument names, and ends the program: with 1 if it is a client's error. */
    static void run(String[] arguments, Operations operations) {
        try {
            Object result = operations.run(arguments[0]);
            if (result != null) {
                print(result);
            }
        } catch (Exception error) {
            exit(error);
        }
        System.exit(0);
    }

    /** Prints an error with its causes, and ends the program. */
    static void exit(Throwable error) {
        print(new Failure(chain(error)));
        System.exit(1);
    }

    static synchronized void print(Object result) {
        System.out.println(JSON.toJson(result));
    }

    /** Returns a setting of the environment, or null. */
    static String setting(String name) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? null : value;
    }

    /** Returns when the standard input ends. */
    static void inputEnded() throws IOException {
        System.in.transferTo(OutputStream.nullOutputStream());
    }

    static IllegalArgumentException unknownOperation(String name) {
        return new IllegalArgumentException("no such operation: " + name);
    }

    private static String chain(Throwable error) {
        return error.getCause() == null ? error.toString() : error + ": " + chain(error.getCause());
    }

    private record Failure(String error) {
    }
}
